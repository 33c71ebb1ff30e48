"""Turns a builder's nested phases into one share that only grows."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class PhaseTree:
    """The phases that a builder is in.

    A phase announces how many steps it has and may open further phases inside each step. The
    builder may report from several threads.

    Example:
        >>> tree = PhaseTree()
        >>> tree.start("build", None, 4)
        >>> tree.step("build", 0)
        >>> tree.share
        0.25
    """

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._lock = threading.Lock()
        self._share = 0.0

    @property
    def share(self) -> float:
        """What is done of all work, in [0, 1]; never less than it was."""
        with self._lock:
            roots = [name for name, phase in self._phases.items() if phase.parent is None]
            now = max((self._done(name) for name in roots), default=0.0)
            self._share = max(self._share, min(now, 1.0))
            return self._share

    @property
    def innermost(self) -> str:
        """Name of the phase that was opened last and is not finished; empty for none."""
        with self._lock:
            return next(reversed(self._phases), "")

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Opens a phase."""
        with self._lock:
            self._drop(name)
            known = parent if parent in self._phases else None
            self._phases[name] = _Phase(known, max(steps, 1))

    def step(self, name: str, step: int) -> None:
        """Notes that a phase has finished the step of this number, counted from 0."""
        with self._lock:
            if name in self._phases:
                phase = self._phases[name]
                phase.done = max(phase.done, min(step + 1, phase.steps))

    def finish(self, name: str) -> None:
        """Closes a phase; the last one that is open stays, as done."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is None:
                return
            if phase.parent is None:
                phase.done = phase.steps
            else:
                self._drop(name)

    def _drop(self, name: str) -> None:
        """Forgets a phase and all that was opened inside it."""
        if self._phases.pop(name, None) is not None:
            for child in [child for child, p in self._phases.items() if p.parent == name]:
                self._drop(child)

    def _done(self, name: str) -> float:
        phase = self._phases[name]
        inside = [child for child, other in self._phases.items() if other.parent == name]
        within = max((self._done(child) for child in inside), default=0.0)
        return min(phase.done + min(within, 1.0), phase.steps) / phase.steps
