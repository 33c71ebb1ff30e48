"""Values over time, and what they were between two moments at which they were told."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT = 4096
"""Values that a track of a live link remembers: 80 seconds at 50 a second."""


@dataclass(slots=True)
class Track(Generic[T]):
    """Values in the order of their times, whatever the order in which they come.

    Attributes:
        between: The value at a share of the way from one to the next.
        onward: The value some seconds after the last one, or before the first one.
        stale_s: Values farther apart in time, and a last one older than that, tell nothing.
        kept: How many are remembered, None for all.
    """

    between: Callable[[T, T, float], T]
    onward: Callable[[T, float], T]
    stale_s: float
    kept: int | None = KEPT
    _times_s: list[float] = field(default_factory=list)
    _values: list[T] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, time_s: float, value: T) -> None:
        """Takes a value; of two with one time the first counts."""
        place = bisect_left(self._times_s, time_s)
        if place < len(self._times_s) and self._times_s[place] == time_s:
            return
        self._times_s.insert(place, time_s)
        self._values.insert(place, value)
        if self.kept is not None and len(self._times_s) > self.kept:
            forgotten = self.kept // 8  # many at once: it moves all others
            del self._times_s[:forgotten], self._values[:forgotten]

    def clear(self) -> None:
        """Forgets all values."""
        self._times_s.clear()
        self._values.clear()

    def at(self, time_s: float) -> T | None:
        """Returns the value at a time; None where no other is near enough in time."""
        place = bisect_left(self._times_s, time_s)
        if 0 < place < len(self._times_s):
            before_s, after_s = self._times_s[place - 1 : place + 1]
            if after_s - before_s <= self.stale_s:
                share = (time_s - before_s) / (after_s - before_s)
                return self.between(self._values[place - 1], self._values[place], share)
        for near in (place - 1, place):  # the earlier one first: what comes later may be far off
            if 0 <= near < len(self._times_s):
                elapsed_s = time_s - self._times_s[near]
                if abs(elapsed_s) <= self.stale_s:
                    return self.onward(self._values[near], elapsed_s)
        return None
