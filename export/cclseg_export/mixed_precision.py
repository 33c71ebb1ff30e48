"""Finds the smallest set of layers that must stay in floating point for a budget to hold.

Layers come ranked by what they cost (``sensitivity``). Keeping more of them never makes the file
much worse, so the number of costliest layers to keep is found by doubling and bisecting; from that
set, layers are then given back one by one, the cheapest first, while the budget still holds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Trial:
    """One mixture of precisions that was made and measured.

    Attributes:
        kept: Nodes in floating point.
        loss_points: Largest IoU that any class is likely to lose on any backend, in points.
        place: Where that is ("water on openvino").
        passes: Whether that loss is within the budget.
    """

    kept: tuple[str, ...]
    loss_points: float
    place: str
    passes: bool


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Outcome of a search.

    Attributes:
        trials: All that was measured, in order.
        best: The smallest mixture that passes; where none does, the one that loses least.
        complete: False where the time ran out before the search came to its end.
    """

    trials: tuple[Trial, ...]
    best: Trial
    complete: bool


class _TimeIsUpError(Exception):
    """Ends a search between two trials."""


class _Search:
    """Remembers what was measured, and stops between trials when the time is up."""

    def __init__(
        self,
        measure: Callable[[tuple[str, ...]], Trial],
        *,
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._measure = measure
        self._clock = clock
        self._stop = clock() + seconds
        self.trials: dict[frozenset[str], Trial] = {}

    def passes(self, kept: tuple[str, ...]) -> bool:
        """Measures a mixture unless it was before. The first one is measured in any case."""
        key = frozenset(kept)
        if key not in self.trials:
            if self.trials and self._clock() >= self._stop:
                raise _TimeIsUpError
            self.trials[key] = self._measure(kept)
        return self.trials[key].passes

    def result(self, *, complete: bool) -> SearchResult:
        trials = tuple(self.trials.values())
        passing = [trial for trial in trials if trial.passes]
        best = (
            min(passing, key=lambda trial: len(trial.kept))
            if passing
            else min(trials, key=lambda trial: trial.loss_points)
        )
        return SearchResult(trials, best, complete)


def smallest_float_set(
    ranked: Sequence[str],
    measure: Callable[[tuple[str, ...]], Trial],
    *,
    always: tuple[str, ...] = (),
    first_guess: int = 1,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """Searches for the smallest set of nodes whose floating point brings a file into its budget.

    Args:
        ranked: Nodes that may stay in floating point, the costliest first.
        measure: Makes and measures the file that keeps these nodes in floating point.
        always: Nodes that stay in floating point in any case.
        first_guess: Number of the costliest nodes that is tried after none of them: one that is
            likely enough brings a set that passes early, in case the time is short.
        seconds: No further trial is begun after this time.
        clock: Seconds that only grow.

    Returns:
        What was tried and the best of it. A set that passes is minimal where the search is
        complete: giving back any one of its nodes would break the budget.
    """
    ranked = [node for node in ranked if node not in always]
    search = _Search(measure, seconds=seconds, clock=clock)
    try:
        count = _fewest_of_the_costliest(
            len(ranked), first_guess, lambda n: search.passes((*always, *ranked[:n]))
        )
        if count is not None:
            _give_back(ranked[:count], lambda kept: search.passes((*always, *kept)))
    except _TimeIsUpError:
        return search.result(complete=False)
    return search.result(complete=True)


def _fewest_of_the_costliest(
    most: int, first_guess: int, passes: Callable[[int], bool]
) -> int | None:
    """Returns the least count that passes if passing is monotonic; None where not even all do."""
    failing, passing = -1, 0
    while not passes(passing):
        if passing == most:
            return None
        failing, passing = passing, min(most, max(1, first_guess, 2 * passing))
    while passing - failing > 1:
        middle = (failing + passing) // 2
        if passes(middle):
            passing = middle
        else:
            failing = middle
    return passing


def _give_back(kept: list[str], passes: Callable[[tuple[str, ...]], bool]) -> None:
    """Quantises nodes again, one by one, as long as the budget holds."""
    for node in reversed(kept[:]):
        fewer = [other for other in kept if other != node]
        if passes(tuple(fewer)):
            kept = fewer
