"""Per-stage wall-clock times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageTimer:
    """Adds up the milliseconds spent in named stages.

    Example:
        >>> timer = StageTimer()
        >>> with timer.stage("infer"):
        ...     total = sum(range(1000))
        >>> list(timer.ms)
        ['infer']
    """

    __slots__ = ("ms",)

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the body of a with statement and adds it to the stage ``name``."""
        start_ns = time.perf_counter_ns()
        try:
            yield
        finally:
            self.add(name, (time.perf_counter_ns() - start_ns) / 1e6)

    def add(self, name: str, elapsed_ms: float) -> None:
        """Adds milliseconds that were measured elsewhere to the stage ``name``."""
        self.ms[name] = self.ms.get(name, 0.0) + elapsed_ms
