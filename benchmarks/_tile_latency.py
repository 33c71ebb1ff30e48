"""How long backends take for a tile, cases taking turns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _record import percentiles

from cclseg.backends.choose import load_backend

if TYPE_CHECKING:
    from cclseg.backends.base import Backend

BACKENDS = ("onnxruntime", "openvino")
STAGES = {"alone": 1, "of eight": 8}
"""Tiles in one call: a call alone, or a tile's share of a call with eight."""

_WARM_UP_CALLS = 10
_BLOCK_CALLS = 10


@dataclass
class Case:
    """One model on one backend, with its samples in milliseconds per tile."""

    path: Path
    backend: Backend
    load_ms: float
    samples_ms: dict[str, list[float]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Model, precision and backend."""
        return f"{self.backend.spec.name} {self.backend.spec.precision} {self.backend.name}"

    def measure(self, stage: str, calls: int) -> None:
        """Adds samples of one stage."""
        tiles = STAGES[stage]
        spec = self.backend.spec
        shape = (tiles, len(spec.bands), *spec.input_hw)
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        samples = self.samples_ms.setdefault(stage, [])
        for _ in range(calls):
            start_ns = time.perf_counter_ns()
            self.backend.infer(images)
            samples.append((time.perf_counter_ns() - start_ns) / 1e6 / tiles)

    def record(self, threads: int) -> dict[str, Any]:
        """Returns the case as result files hold it."""
        return {
            "model": self.backend.spec.name,
            "file": self.path.name,
            "backend": self.backend.name,
            "precision": self.backend.spec.precision,
            "input_hw": self.backend.spec.input_hw,
            "threads": threads,
            "load_ms": self.load_ms,
            "samples_ms": self.samples_ms,
            "latency_ms": {stage: percentiles(values) for stage, values in self.samples_ms.items()},
        }


def measured_in_turns(
    paths: Sequence[Path], *, threads: int, samples: int, stages: Sequence[str] = tuple(STAGES)
) -> list[Case]:
    """Times every model on every backend.

    Cases take turns in blocks, so that other load on the machine meets all of them alike.
    """
    cases = [_opened(path, name, threads) for path in paths for name in BACKENDS]
    for case in cases:
        for stage in stages:
            case.measure(stage, _WARM_UP_CALLS)
            case.samples_ms[stage].clear()
    for calls in _blocks(samples):
        for case in cases:
            for stage in stages:
                case.measure(stage, calls)
    return cases


def _opened(path: Path, name: str, threads: int) -> Case:
    backend_class = load_backend(name)
    start_ns = time.perf_counter_ns()
    backend = backend_class.open(path, threads=threads)
    return Case(path, backend, (time.perf_counter_ns() - start_ns) / 1e6)


def _blocks(total: int) -> Iterator[int]:
    for done in range(0, total, _BLOCK_CALLS):
        yield min(_BLOCK_CALLS, total - done)
