"""Keeps the time of each frame within a budget by choosing among levels of work.

A control loop whose clock is the frames themselves. It goes down fast and up slowly: a level is
left as soon as it exceeds the budget in more frames than the 99th percentile allows, straight for
the first level that should fit, and the next higher one is tried only after many frames in a row
have left room for it. A trial that fails doubles the wait for the next one at that level, so that
no load makes the levels swing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

# Of so many frames at a level one may be late: that is what a 99th percentile means.
_FRAMES_PER_OVERRUN = 100
# A level that takes this share of the budget is about to exceed it.
_FULL = 0.95
# A level is expected to fit on the way down, and on the way up: the gap is the hysteresis.
_FITS_BELOW, _FITS_ABOVE = 0.9, 0.8
_RECENT = 8
# On the way down two late frames must outvote what came before.
_LATEST = 3
_PATIENCE, _MOST_PATIENCE = 50, 1600
_TRIAL = 100


class LevelController:
    """Chooses the level of the next frame from the times of the last ones.

    Pure: it reads no clock. Not to be shared between threads that observe.

    Args:
        costs_ms: What a frame takes at each level on the idle machine, falling, one at least; only
            their ratios count once frames have been observed.
        budget_ms: What a frame may take, above 0.

    Attributes:
        level: Place in ``costs_ms`` of the level for the next frame.

    Example:
        >>> control = LevelController([40.0, 20.0, 5.0], budget_ms=30.0)
        >>> control.level
        1
        >>> for _ in range(2):
        ...     control.observe(1, 45.0)
        >>> control.level
        2
    """

    def __init__(self, costs_ms: Sequence[float], budget_ms: float) -> None:
        assert budget_ms > 0
        assert all(0 < below < above for above, below in pairwise(costs_ms))
        self._costs_ms = tuple(costs_ms)
        self._budget_ms = budget_ms
        # Frames to wait before a climb to each level.
        self._patience = [_PATIENCE] * len(costs_ms)
        self.level = self._first_that_fits(0, costs_ms[0])
        self._on_trial, self._calm = False, 0
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._late: deque[bool] = deque(maxlen=_FRAMES_PER_OVERRUN)

    def observe(self, level: int, elapsed_ms: float) -> None:
        """Takes the time of a frame into account and sets :attr:`level` for the next.

        Args:
            level: Where the frame was computed; frames that were on their way when the level
                changed do not count.
            elapsed_ms: What it took.
        """
        if level != self.level:
            return
        self._recent.append(elapsed_ms)
        self._late.append(elapsed_ms > self._budget_ms)
        if self._is_over() and level + 1 < len(self._costs_ms):
            self._go_down()
        else:
            self._look_up()

    def _is_over(self) -> bool:
        if sum(self._late) > 1:
            return True
        settled = len(self._recent) == _RECENT
        return settled and median(self._recent) > _FULL * self._budget_ms

    def _go_down(self) -> None:
        if self._on_trial:
            self._patience[self.level] = min(2 * self._patience[self.level], _MOST_PATIENCE)
        typical_ms = median(list(self._recent)[-_LATEST:])
        self.level = self._first_that_fits(self.level + 1, self._expected_ms(0, typical_ms))
        self._start(on_trial=False)

    def _look_up(self) -> None:
        """Counts the frames that leave room for more, and climbs one level after many."""
        if self._on_trial and len(self._late) == _TRIAL:
            self._on_trial, self._patience[self.level] = False, _PATIENCE
        if not self.level:
            return
        above_ms = self._expected_ms(self.level - 1, max(self._recent))
        self._calm = self._calm + 1 if above_ms <= _FITS_ABOVE * self._budget_ms else 0
        if self._calm >= self._patience[self.level - 1]:
            self.level -= 1
            self._start(on_trial=True)

    def _start(self, *, on_trial: bool) -> None:
        """Forgets what was observed at another level."""
        self._on_trial, self._calm = on_trial, 0
        self._recent.clear()
        self._late.clear()

    def _expected_ms(self, level: int, here_ms: float) -> float:
        """Returns what a level should take, given what the present one takes."""
        return here_ms * self._costs_ms[level] / self._costs_ms[self.level]

    def _first_that_fits(self, first: int, full_ms: float) -> int:
        """Returns the first level from ``first`` on that should fit, the last one if none does."""
        for level in range(first, len(self._costs_ms)):
            expected_ms = full_ms * self._costs_ms[level] / self._costs_ms[0]
            if expected_ms <= _FITS_BELOW * self._budget_ms:
                return level
        return len(self._costs_ms) - 1
