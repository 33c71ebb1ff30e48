"""What the levels of a budget cost and lose, and whether the budget holds on a slowing machine.

Usage: python benchmarks/deadline.py [--seeds 2 3] [--frames 12] [--episode 200] [-o FILE]

Accuracy is that of 720p frames of virtual flights at every level. Then the network is made slower
by a factor, computing on after every call, and fast again: the budget is half as much again as the
full level needs, so that a factor of three leaves it no room.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from _record import percentiles, write_result

from cclseg import Segmenter
from cclseg.backends.base import Backend
from cclseg.backends.choose import open_backend
from cclseg.levels import LevelRun
from cclseg.metrics import ConfusionMatrix
from cclseg.models import find_model
from cclseg.virtual import VirtualFlight

if TYPE_CHECKING:
    from cclseg.frame import FloatArray, Image

_SIZE_HW = (720, 1280)
_FACTOR = 3.0
_BUDGET_OVER_COST = 1.5
_BACK = 3  # episodes in which the machine is fast again: climbing takes its time


class Slowed(Backend):
    """A network on a machine that may be slower than it is."""

    name: ClassVar[str] = "slowed"
    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend.spec)
        self._backend = backend
        self.tiles_per_call = backend.tiles_per_call
        self.factor = 1.0

    @classmethod
    def open(cls, path: Path, **_: object) -> Backend:
        """Opens the file on the fastest library."""
        return cls(open_backend(path))

    def _infer(self, images: FloatArray) -> FloatArray:
        start_ns = time.perf_counter_ns()
        logits = self._backend.infer(images)
        until_ns = start_ns + self.factor * (time.perf_counter_ns() - start_ns)
        while time.perf_counter_ns() < until_ns:
            pass
        return logits

    def close(self) -> None:
        """Frees the network."""
        self._backend.close()


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ccl-lite0")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--frames", type=int, default=12, help="of each flight")
    parser.add_argument("--episode", type=int, default=200, help="frames at each speed")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    options = {"backend": arguments.backend, "threads": arguments.threads}
    flights = [
        VirtualFlight(seed, frames=arguments.frames, frame_hw=_SIZE_HW) for seed in arguments.seeds
    ]
    with Segmenter(arguments.model, budget_ms=1e6, **options) as segmenter:
        levels = _levels(segmenter, flights)
    backend = Slowed(open_backend(find_model(arguments.model), **options))
    image = flights[0].frame(0).image
    content = {
        "model": arguments.model,
        **options,
        "size_wh": _SIZE_HW[::-1],
        "levels": levels,
        "slowing": _slowing(backend, image, arguments.episode),
    }
    print(write_result("deadline", content, arguments.out))


def _levels(segmenter: Segmenter, flights: list[VirtualFlight]) -> list[dict[str, Any]]:
    """Cost and accuracy of each level."""
    records = []
    for level in segmenter.levels:
        run = LevelRun(level)
        matrix, samples_ms = ConfusionMatrix(segmenter.spec.num_classes), []
        for flight in flights:
            for frame in flight:
                out = run(frame.image).segmentation(frame.image)
                matrix.update(out.mask, frame.mask)
                samples_ms.append(sum(out.timing.values()))
        records.append(
            {
                "level": level.name,
                "model": level.model,
                "overlap": level.overlap,
                "scale": level.scale,
                "miou": matrix.miou,
                "accuracy": matrix.accuracy,
                "samples_ms": samples_ms,
                "latency_ms": percentiles(samples_ms[1:]),
            }
        )
        p50 = records[-1]["latency_ms"]["p50"]
        print(f"{level.name:22} mIoU {matrix.miou:.4f}  p50 {p50:.1f} ms", flush=True)
    return records


def _slowing(backend: Slowed, image: Image, episode: int) -> dict[str, Any]:
    """Runs a machine that becomes slow and fast again, with and without a budget."""
    with Segmenter.from_backend(backend) as plain:
        cost_ms = plain.level_costs_ms(_SIZE_HW)["full"]
        budget_ms = _BUDGET_OVER_COST * cost_ms
        few = max(1, episode // 10)
        without = _episodes(plain, backend, image, [1.0] * few + [_FACTOR] * few)
        with Segmenter.from_backend(backend, budget_ms=budget_ms) as kept:
            factors = [1.0] * episode + [_FACTOR] * episode + [1.0] * (_BACK * episode)
            within = _episodes(kept, backend, image, factors)
    late = np.array(within["samples_ms"]) > budget_ms
    p99, slowed = np.percentile(within["samples_ms"], 99), np.median(without["samples_ms"][few:])
    print(
        f"budget {budget_ms:.0f} ms: p99 {p99:.0f} ms, {late.sum()} of {len(late)} frames late; "
        f"without a budget, slowed, p50 {slowed:.0f} ms"
    )
    return {
        "factor": _FACTOR,
        "budget_ms": budget_ms,
        "late_frames": int(late.sum()),
        "with_budget": within | {"latency_ms": percentiles(within["samples_ms"])},
        "without_budget": without,
    }


def _episodes(
    segmenter: Segmenter, backend: Slowed, image: Image, factors: list[float]
) -> dict[str, Any]:
    samples_ms, levels = [], []
    for factor in factors:
        backend.factor = factor
        start_ns = time.perf_counter_ns()
        out = segmenter(image)
        samples_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
        levels.append(out.level)
    return {"factors": factors, "samples_ms": samples_ms, "levels": levels}


if __name__ == "__main__":
    main()
