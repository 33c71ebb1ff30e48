"""The watchdog: restarts a source that should be live and brings nothing.

Sources notice most faults themselves and connect anew (:mod:`cclseg.sources.live`). The watchdog is
for what they do not notice. It counts how long a source has owed a frame, lets a source that is
about to connect again have its time, and gives up after a few restarts without a frame: what is
wrong then only a new process mends, which is the service manager's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..sources.live import SourceEvent


@dataclass(frozen=True, slots=True)
class WatchdogRules:
    """How long a watchdog waits.

    Attributes:
        patience_s: A source that owed a frame for this time is restarted. Each further restart
            waits twice as long.
        longest_s: But not longer than this.
        restarts: Restarts in a row without a frame after which it gives up.
    """

    patience_s: float = 30.0
    longest_s: float = 300.0
    restarts: int = 5


class Watchdog:
    """Watches one source; its times are by any clock that only goes forward.

    Attributes:
        restarts: How often it asked for a restart, over all its life.
    """

    def __init__(self, rules: WatchdogRules) -> None:
        self._rules = rules
        self._in_a_row = 0
        self._not_before_s = 0.0
        self.restarts = 0

    @property
    def gave_up(self) -> bool:
        """Whether so many restarts were in vain that no more are asked for."""
        return self._in_a_row > self._rules.restarts

    def hear(self, event: SourceEvent, now_s: float) -> None:
        """Notes what a source does about its troubles by itself, which takes its time."""
        if event.state in ("connecting", "lost"):
            self._not_before_s = max(
                self._not_before_s, now_s + (event.retry_s or 0.0) + self._wait_s()
            )

    def look(self, owed_s: float | None, now_s: float) -> bool:
        """Says whether the source is to be restarted now.

        Args:
            owed_s: How long it has owed a frame; None where it owes none.
            now_s: The time.
        """
        if owed_s is None or owed_s < self._rules.patience_s:
            if self._in_a_row and owed_s is not None:
                self._in_a_row, self._not_before_s = 0, 0.0  # it gave a frame since
            return False
        if now_s < self._not_before_s or self.gave_up:
            return False
        self._in_a_row += 1
        self._not_before_s = now_s + self._wait_s()
        if self.gave_up:
            return False
        self.restarts += 1
        return True

    def give_up(self) -> None:
        """Asks for no restart any more: the source cannot be restarted."""
        self._in_a_row = self._rules.restarts + 1

    def _wait_s(self) -> float:
        doubled_s = self._rules.patience_s * 2.0 ** min(self._in_a_row, 32)
        return min(doubled_s, max(self._rules.longest_s, self._rules.patience_s))
