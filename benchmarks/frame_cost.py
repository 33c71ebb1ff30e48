"""What a frame costs outside the network: milliseconds, processor time, page faults, memory.

Usage: python benchmarks/frame_cost.py [VIDEO] [--forms opencv avx2 ...] [--blocks 25] [-o FILE]

The network is replaced by one that hands out logits which it computed once, so that what remains
is the work of the runtime itself. Each form (see cclseg/frame_kernels.py) takes its turn in blocks
of frames, whose means are the samples. "call" is ``Segmenter.__call__``, "stream" a whole
``Segmenter.stream`` of frames that are decoded already, its start included. Memory is what Python
and numpy had allocated at most during a call, beyond the arrays of its result. Without a video a
virtual flight is rendered.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from _record import percentiles, write_result
from _replay import Replay, first_logits

from cclseg import Segmenter, open_source
from cclseg.profiling import StageTimer

if TYPE_CHECKING:
    from cclseg.frame import Image
    from cclseg.result import Segmentation

FORM_VARIABLE = "CCLSEG_FRAME_KERNEL"
_BLOCK_FRAMES = {"call": 20, "stream": 100}
_LOADED_FRAMES = 8


@dataclass
class Case:
    """One form and one way to call it, with its samples per frame."""

    form: str
    way: str
    segmenter: Segmenter
    stage_ms: dict[str, list[float]] = field(default_factory=dict)
    cpu_ms: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    minor_faults: list[float] = field(default_factory=list)
    extra_bytes: int = 0

    def measure(self, images: list[Image]) -> None:
        """Adds one sample, a block of frames."""
        count = _BLOCK_FRAMES[self.way]
        frames = (images * count)[:count]
        run: Callable[[list[Image]], Iterator[Segmentation]] = (
            self.segmenter.stream if self.way == "stream" else partial(map, self.segmenter)
        )
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        cpu_ns, start_ns = time.process_time_ns(), time.perf_counter_ns()
        stages = StageTimer()
        for result in run(frames):
            for stage, elapsed_ms in result.timing.items():
                stages.add(stage, elapsed_ms)
        self.wall_ms.append((time.perf_counter_ns() - start_ns) / 1e6 / len(frames))
        self.cpu_ms.append((time.process_time_ns() - cpu_ns) / 1e6 / len(frames))
        for stage, total_ms in stages.ms.items():
            self.stage_ms.setdefault(stage, []).append(total_ms / len(frames))
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        self.minor_faults.append(faults / len(frames))

    def record(self) -> dict[str, object]:
        """Returns the samples and their percentiles."""
        figures = {"cpu_ms": self.cpu_ms, "wall_ms": self.wall_ms, "faults": self.minor_faults}
        return {
            "form": self.form,
            "way": self.way,
            "samples": figures | {"stage_ms": self.stage_ms},
            "per_frame": {name: percentiles(values) for name, values in figures.items()},
            "stage_ms": {stage: percentiles(values) for stage, values in self.stage_ms.items()},
            "allocated_beyond_the_result_bytes": self.extra_bytes,
        }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", nargs="?", default="virtual:seed=1,frames=8,size=1280x720")
    parser.add_argument("-m", "--model", default="ccl-lite0")
    parser.add_argument("--forms", nargs="+", help="those of this machine where not given")
    parser.add_argument("--blocks", type=int, default=25, help="samples per form and way")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    with open_source(arguments.video) as source:
        images = [frame.image for frame in islice(source, _LOADED_FRAMES)]
    spec, logits = first_logits(arguments.model, images[0])
    cases = []
    for form in arguments.forms or _forms():
        with _chosen(form):
            segmenter = Segmenter.from_backend(Replay(spec, logits))
            segmenter(images[0])
            cases += [Case(form, way, segmenter) for way in _BLOCK_FRAMES]
    for _ in range(arguments.blocks):
        for case in cases:
            with _chosen(case.form):
                case.measure(images)
    for case in cases:
        with _chosen(case.form):
            case.extra_bytes = _beyond_the_result(case.segmenter, images[:3])
    for case in cases:
        _print(case)
    content = {
        "video": Path(arguments.video).name,
        "frame_hw": images[0].shape[:2],
        "opencv_threads": cv2.getNumThreads(),
        "cases": [case.record() for case in cases],
    }
    print(write_result("frame_cost", content, arguments.out))


def _forms() -> list[str]:
    from cclseg.frame_kernels import WITHOUT_KERNEL, kernel_names
    from cclseg.ops_build import find_cpu_library

    library = find_cpu_library("onnxruntime")
    return [WITHOUT_KERNEL, *(kernel_names(library) if library else ())]


@contextmanager
def _chosen(form: str) -> Iterator[None]:
    os.environ[FORM_VARIABLE] = form
    yield
    del os.environ[FORM_VARIABLE]


def _beyond_the_result(segmenter: Segmenter, frames: list[Image]) -> int:
    """Returns the most that a warm call had allocated besides what its result holds."""
    most = 0
    tracemalloc.start()
    for frame in frames:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        result = segmenter(frame)
        peak = tracemalloc.get_traced_memory()[1] - before
        most = max(most, peak - result.mask.nbytes - result._logits.nbytes)
    tracemalloc.stop()
    return most


def _print(case: Case) -> None:
    stages = ", ".join(
        f"{stage} {np.median(values):.2f}"
        for stage, values in case.stage_ms.items()
        if stage != "decode"
    )
    print(
        f"{case.form:9} {case.way:6} cpu {np.median(case.cpu_ms):6.2f} ms, wall "
        f"{np.median(case.wall_ms):6.2f} ms, {np.median(case.minor_faults):6.1f} faults "
        f"a frame; {stages} ms; {case.extra_bytes} bytes beyond the result"
    )


if __name__ == "__main__":
    main()
