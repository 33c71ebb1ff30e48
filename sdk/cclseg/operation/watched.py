"""One watched stream: what is remembered of it, and what follows for its state."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from .health import ClassShare, State, StreamHealth
from .watchdog import Watchdog

if TYPE_CHECKING:
    from ..result import Segmentation
    from ..sources import Source
    from ..sources.live import SourceEvent
    from ..stream import StreamStats
    from .watchdog import WatchdogRules

_FPS_OVER_S = 10.0


class Watched:
    """What is known of one stream.

    Attributes:
        name: Its name.
        source: Where its frames come from.
        label: What people call it.
        watchdog: Says when the source is to be restarted.
        newest: The newest result.
        overdue: Frames wait for their results for too long.
    """

    def __init__(self, name: str, source: Source, rules: WatchdogRules) -> None:
        self.name = name
        self.source = source
        self.label = name or source.name
        self.watchdog = Watchdog(rules)
        self.newest: Segmentation | None = None
        self.overdue = False
        self._patience_s = rules.patience_s
        self._lost = self._stalled = False
        self._detail = ""
        self._result_s: float | None = None
        self._pending_s: float | None = None
        self._times: deque[float] = deque(maxlen=64)
        self._lock = threading.Lock()  # guards the times
        self._shares_of: Segmentation | None = None
        self._shares: tuple[ClassShare, ...] = ()

    def note_result(self, result: Segmentation, now_s: float) -> None:
        """Notes a result when it is handed out."""
        with self._lock:
            self._times.append(now_s)
        self.newest, self._result_s = result, now_s

    def hear(self, event: SourceEvent, now_s: float) -> None:
        """Notes what happens to the source."""
        self.watchdog.hear(event, now_s)
        if event.state in ("live", "restored"):
            self._lost = self._stalled = False
        self._lost |= event.state == "lost"
        self._stalled |= event.state == "stalled"
        self._detail = event.detail or self._detail

    def note_progress(self, stats: StreamStats, now_s: float) -> None:
        """Notes since when frames wait for their results, and whether they wait for too long."""
        settled = stats.delivered + stats.dropped + stats.superseded + stats.failed
        if stats.captured <= settled:
            self._pending_s = None
        elif self._pending_s is None:
            self._pending_s = now_s
        since_s = max(self._pending_s or now_s, self._result_s or 0.0)
        self.overdue = self._pending_s is not None and now_s - since_s > self._patience_s

    def state(self, stats: StreamStats, owed_s: float | None, *, ended: bool) -> tuple[State, str]:
        """Returns how the stream is, and why."""
        trouble = self._trouble(owed_s or 0.0)
        if trouble is not None:
            return trouble
        if ended and self._pending_s is None:
            return "ended", ""
        return ("live" if stats.delivered else "starting"), ""

    def _trouble(self, owed_s: float) -> tuple[State, str] | None:
        if self.watchdog.gave_up:
            return "failed", f"no frame for {owed_s:.0f} s; restarting the source is in vain"
        if self.overdue:
            return "stalled", "frames come, but no results: the network or who takes them hangs"
        if self._lost:
            return "lost", self._detail
        if self._stalled:
            return "stalled", self._detail
        if self.source.live and owed_s > self._patience_s:
            return "stalled", f"no frame for {owed_s:.0f} s"
        return None

    def health(self, stats: StreamStats, state: State, reason: str, now_s: float) -> StreamHealth:
        """Returns everything about the stream."""
        return StreamHealth(
            name=self.name,
            state=state,
            reason=reason,
            captured=stats.captured,
            delivered=stats.delivered,
            dropped=stats.dropped,
            superseded=stats.superseded,
            failed=stats.failed,
            restarts=self.watchdog.restarts,
            fps=self._fps(now_s),
            age_ms=stats.age_ms,
            last_result_s=None if self._result_s is None else now_s - self._result_s,
            classes=self._newest_shares(),
        )

    def _fps(self, now_s: float) -> float:
        with self._lock:
            times = [time_s for time_s in self._times if now_s - time_s <= _FPS_OVER_S]
        return len(times) / max(now_s - times[0], 1.0) if times else 0.0

    def _newest_shares(self) -> tuple[ClassShare, ...]:
        newest = self.newest
        if newest is not None and newest is not self._shares_of:
            self._shares_of = newest
            self._shares = tuple(
                ClassShare(name, "#{:02x}{:02x}{:02x}".format(*colour), share)
                for (name, share), colour in zip(
                    newest.fractions().items(), newest.palette, strict=True
                )
            )
        return self._shares
