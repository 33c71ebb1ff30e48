"""Latency of one tile per model, precision and backend.

Usage: python benchmarks/latency.py [MODEL.onnx ...] [--threads 2] [--samples 200] [-o FILE]

Without models the bundled ones are measured; give an fp32 and an int8 file of one model to see the
gain. Cases take turns in blocks, so that other load on the machine meets all of them alike. "alone"
is one tile in one call, "of eight" a tile's share of a call with eight. A case that fails fails the
run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _record import percentiles, write_result

from cclseg.backends.choose import load_backend
from cclseg.models import bundled_models

if TYPE_CHECKING:
    from cclseg.backends.base import Backend

_BACKENDS = ("onnxruntime", "openvino")
_STAGES = {"alone": 1, "of eight": 8}
_WARM_UP_CALLS = 10
_BLOCK_CALLS = 10


@dataclass
class Case:
    """One model on one backend, with its samples in milliseconds per tile."""

    path: Path
    backend: Backend
    load_ms: float
    samples_ms: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in _STAGES})

    @property
    def label(self) -> str:
        """Model, precision and backend."""
        return f"{self.backend.spec.name} {self.backend.spec.precision} {self.backend.name}"

    def measure(self, stage: str, calls: int) -> None:
        """Adds samples of one stage."""
        tiles = _STAGES[stage]
        spec = self.backend.spec
        shape = (tiles, len(spec.bands), *spec.input_hw)
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        for _ in range(calls):
            start_ns = time.perf_counter_ns()
            self.backend.infer(images)
            self.samples_ms[stage].append((time.perf_counter_ns() - start_ns) / 1e6 / tiles)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=200, help="calls per case and stage")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    models = arguments.models or list(bundled_models().values())
    if not models:
        sys.exit("no bundled models in this checkout; give model files")
    cases = [_opened(path, name, arguments.threads) for path in models for name in _BACKENDS]
    for case in cases:
        for stage in _STAGES:
            case.measure(stage, _WARM_UP_CALLS)
            case.samples_ms[stage].clear()
    for calls in _blocks(arguments.samples):
        for case in cases:
            for stage in _STAGES:
                case.measure(stage, calls)
    records = [_record(case, arguments.threads) for case in cases]
    target = write_result(
        "latency", {"threads": arguments.threads, "cases": records}, arguments.out
    )
    _print(cases)
    print(target)


def _opened(path: Path, name: str, threads: int) -> Case:
    backend_class = load_backend(name)
    start_ns = time.perf_counter_ns()
    backend = backend_class.open(path, threads=threads)
    return Case(path, backend, (time.perf_counter_ns() - start_ns) / 1e6)


def _blocks(total: int) -> Iterator[int]:
    for done in range(0, total, _BLOCK_CALLS):
        yield min(_BLOCK_CALLS, total - done)


def _record(case: Case, threads: int) -> dict[str, object]:
    return {
        "model": case.backend.spec.name,
        "file": case.path.name,
        "backend": case.backend.name,
        "precision": case.backend.spec.precision,
        "input_hw": case.backend.spec.input_hw,
        "threads": threads,
        "load_ms": case.load_ms,
        "samples_ms": case.samples_ms,
        "latency_ms": {stage: percentiles(values) for stage, values in case.samples_ms.items()},
    }


def _print(cases: list[Case]) -> None:
    medians = {case.label: {s: np.median(v) for s, v in case.samples_ms.items()} for case in cases}
    for case in cases:
        for stage, values in case.samples_ms.items():
            figures = percentiles(values)
            text = "  ".join(f"{key} {figures[key]:7.2f}" for key in ("p50", "p90", "p99"))
            print(f"{case.label:36} {stage:9} n {figures['n']:4}  {text}  ms")
    for label, stages in medians.items():
        other = medians.get(label.replace(" int8 ", " fp32 "))
        if " int8 " in label and other is not None:
            gains = ", ".join(f"{stage} {other[stage] / stages[stage]:.2f}x" for stage in stages)
            print(f"{label}: faster than fp32 {gains}")


if __name__ == "__main__":
    main()
