"""Finds a small set of layers that must stay in floating point for a budget to hold.

Layers come ranked by the error that they add (``sensitivity``) for the time that they would lose
(``slowdown``), and a trial is dear. So the search begins with none of them in floating point,
foretells from that loss how many of the first it takes until the budget holds, and then gives
layers back, in halves and halves of halves, the last ones first. A layer that cannot be given back
has the failed trial as the reason why it stays.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_AIM = 0.7
"""Share of the budget that is aimed at: a set that passes at once saves a trial."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One mixture of precisions that was made and measured.

    Attributes:
        kept: Nodes in floating point.
        loss_points: Largest IoU that any class is likely to lose on any backend, in points. Where
            that of one backend is over the budget, the others may not have been asked.
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
        best: The fastest mixture that passes; where none does, the one that loses least.
        complete: False where the time ran out before the search came to its end.
        needed: For nodes of ``best`` that were tried in 8 bits, the trial which that failed.
    """

    trials: tuple[Trial, ...]
    best: Trial
    complete: bool
    needed: Mapping[str, Trial] = field(default_factory=dict)


class _TimeIsUpError(Exception):
    """Ends a search between two trials."""


class _Search:
    """Remembers what was measured, and stops between trials when the time is up."""

    def __init__(
        self,
        measure: Callable[[tuple[str, ...]], Trial],
        *,
        slowdowns: Mapping[str, float],
        always: tuple[str, ...],
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._measure = measure
        self._slowdowns = slowdowns
        self._always = always
        self._clock = clock
        self._stop = clock() + seconds
        self.trials: dict[frozenset[str], Trial] = {}
        self.needed: dict[str, Trial] = {}

    def try_with(self, kept: Sequence[str]) -> Trial:
        """Measures a mixture unless it was before. The first one is measured in any case."""
        key = frozenset(kept)
        if key not in self.trials:
            if self.trials and self._clock() >= self._stop:
                raise _TimeIsUpError
            self.trials[key] = self._measure((*self._always, *kept))
        return self.trials[key]

    def result(self, *, complete: bool) -> SearchResult:
        trials = tuple(self.trials.values())
        passing = [trial for trial in trials if trial.passes]
        best = (
            min(passing, key=self._slowdown)
            if passing
            else min(trials, key=lambda trial: trial.loss_points)
        )
        needed = {node: trial for node, trial in self.needed.items() if node in best.kept}
        return SearchResult(trials, best, complete, needed)

    def _slowdown(self, trial: Trial) -> float:
        return sum(self._slowdowns.get(node, 0) for node in trial.kept)


def smallest_float_set(
    shares: Mapping[str, float],
    measure: Callable[[tuple[str, ...]], Trial],
    *,
    slowdowns: Mapping[str, float],
    always: tuple[str, ...] = (),
    budget_points: float,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """Searches for a small set of nodes whose floating point brings a file into its budget.

    Args:
        shares: Nodes that may stay in floating point, with the share of the error that each of
            them adds.
        measure: Makes and measures the file that keeps these nodes in floating point.
        slowdowns: Time that each node loses in floating point, in any unit, above 0.
        always: Nodes that stay in floating point in any case.
        budget_points: The loss that ``measure`` lets pass, in points.
        seconds: No further trial is begun after this time.
        clock: Seconds that only grow.

    Returns:
        What was tried and the best of it. A set that passes is minimal where the search is
        complete: giving back any one of its nodes would break the budget.
    """
    nodes = [node for node in shares if node not in always]
    nodes.sort(key=lambda node: -shares[node] / slowdowns[node])
    shares = {node: shares[node] for node in nodes}
    search = _Search(measure, slowdowns=slowdowns, always=always, seconds=seconds, clock=clock)
    try:
        kept = _enough_of_the_first(search, shares, budget_points)
        if kept:
            _give_back(search, kept, kept)
    except _TimeIsUpError:
        return search.result(complete=False)
    return search.result(complete=True)


def _enough_of_the_first(
    search: _Search, shares: Mapping[str, float], budget_points: float
) -> list[str] | None:
    """Returns so many of the first nodes that they pass; None where not even all of them do."""
    ranked = list(shares)
    # Entry n: the error that is left with the first n in floating point.
    remaining = list(accumulate([*shares.values(), 0.0][::-1]))[::-1]
    count = 0
    while not (trial := search.try_with(ranked[:count])).passes:
        if count == len(ranked):
            return None
        wanted = budget_points / trial.loss_points if budget_points > 0 else 0.0
        foretold = _foretold(remaining, count, wanted)
        count = min(len(ranked), max(1, 2 * count, foretold))
    return ranked[:count]


def _foretold(remaining: Sequence[float], count: int, wanted: float) -> int:
    """Foretells how many of the first nodes must stay for a share of the loss to be left.

    What flips a pixel is the amplitude of the error, so the loss goes with the root of its power.

    Args:
        remaining: Error power that is left with so many of the first nodes in floating point.
        count: How many were.
        wanted: Share of the loss that may be left.
    """
    power = remaining[count] * (_AIM * wanted) ** 2
    return next(n for n, left in enumerate(remaining) if left <= power or n + 1 == len(remaining))


def _give_back(search: _Search, kept: list[str], group: list[str]) -> list[str]:
    """Quantises the nodes of a group again, as many of them as the budget bears.

    Where it does not bear all of them, the second half is tried, then the first one.

    Args:
        search: Measures.
        kept: Nodes in floating point, with which the budget holds.
        group: Those of them to give back, in the order of their rank.

    Returns:
        What is left of ``kept``.
    """
    fewer = [node for node in kept if node not in group]
    trial = search.try_with(fewer)
    if trial.passes:
        return fewer
    if len(group) == 1:
        search.needed[group[0]] = trial
        return kept
    middle = len(group) // 2
    kept = _give_back(search, kept, group[middle:])
    return _give_back(search, kept, group[:middle])
