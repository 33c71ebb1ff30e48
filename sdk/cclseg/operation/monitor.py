"""The monitor: gathers from a stream and its sources how they are."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import __version__
from .health import About, Event, Health, State, StreamHealth, worst
from .heat import Heat, HeatReader
from .watchdog import WatchdogRules
from .watched import Watched

if TYPE_CHECKING:
    from ..result import Segmentation
    from ..sources.live import SourceEvent
    from ..stream import Stream

_log = logging.getLogger(__name__)

_REMEMBERED_EVENTS = 30
_HEAT_EVERY_S = 5.0


class Monitor:
    """Knows how a stream is, from before it is opened until after it has ended.

    Args:
        rules: How long to wait for frames and results.
        clock: Seconds that only go forward.
    """

    def __init__(
        self, rules: WatchdogRules | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.about = About()
        self._rules = rules or WatchdogRules()
        self._clock = clock
        self._started = time.time(), clock()
        self._events: deque[Event] = deque(maxlen=_REMEMBERED_EVENTS)
        self._lock = threading.Lock()  # guards the events
        self._stream: Stream | None = None
        self._watched: dict[str, Watched] = {}
        self._end: tuple[State, str] | None = None
        self._heat_reader = HeatReader()
        self._heat, self._heat_s = self._heat_reader.read(), clock()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the streams; one of them alone is called ""."""
        return tuple(self._watched)

    def watch(self, stream: Stream) -> None:
        """Begins to watch a stream, which has not started yet."""
        watched = {
            name: Watched(name, source, self._rules) for name, source in stream.sources.items()
        }
        for one in watched.values():
            one.source.listen(self._listener(one))
        stream.listen(self._note_result)
        self._stream = stream
        self._watched = watched  # the last step: another thread may look meanwhile

    def newest(self, name: str) -> Segmentation | None:
        """Returns the newest result of a stream."""
        watched = self._watched.get(name)
        return watched.newest if watched else None

    def end(self, state: State, reason: str = "") -> None:
        """Notes that all is over."""
        self._end = state, reason
        self._note(Event(time.time(), self.about.source, state, reason))

    def look(self) -> Health:
        """Looks after everything, restarts what needs it, and says how it is."""
        now_s = self._clock()
        if now_s - self._heat_s >= _HEAT_EVERY_S:
            self._heat, self._heat_s = self._heat_reader.read(), now_s
        streams = tuple(self._look_at(watched, now_s) for watched in self._watched.values())
        state, reason = self._end or (worst(streams) if streams else ("starting", ""))
        if self._end is None and self._stream is not None and self._stream.stopping:
            state, reason = "stopping", ""
        return self._health(state, reason, streams, self._heat)

    @property
    def stuck(self) -> bool:
        """Whether only a new process would help: no results though frames come, or no frames."""
        return any(w.overdue or w.watchdog.gave_up for w in self._watched.values())

    def _health(
        self, state: State, reason: str, streams: tuple[StreamHealth, ...], heat: Heat
    ) -> Health:
        started_unix_s, started_s = self._started
        with self._lock:
            events = tuple(self._events)
        return Health(
            state=state,
            reason=reason,
            about=self.about,
            streams=streams,
            events=events,
            version=__version__,
            pid=os.getpid(),
            started_s=started_unix_s,
            uptime_s=self._clock() - started_s,
            temperature_c=heat.temperature_c,
            throttled=heat.throttled,
        )

    def _look_at(self, watched: Watched, now_s: float) -> StreamHealth:
        assert self._stream is not None
        stats = self._stream.stats(watched.name)
        watched.note_progress(stats, now_s)
        owed_s = self._stream.owed_s(watched.name)
        if (
            watched.source.live
            and not self._stream.stopping
            and watched.watchdog.look(owed_s, now_s)
        ):
            self._restart(watched, owed_s or 0.0)
        ended = self._stream.has_ended(watched.name)
        state, reason = watched.state(stats, owed_s, ended=ended)
        return watched.health(stats, state, reason, now_s)

    def _restart(self, watched: Watched, owed_s: float) -> None:
        reason = f"no frame for {owed_s:.0f} s"
        if watched.source.restart(f"restarted by the watchdog: {reason}"):
            state = "restarted"
        else:
            state, reason = "failed", f"{reason}, and it cannot be restarted"
            watched.watchdog.give_up()
        self._note(Event(time.time(), watched.label, state, reason))
        fields = {"event": "watchdog", "stream": watched.label, "state": state}
        _log.warning("%s is %s: %s", watched.label, state, reason, extra=fields)

    def _note(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)

    def _note_result(self, result: Segmentation) -> None:
        assert result.frame is not None
        self._watched[result.frame.stream].note_result(result, self._clock())

    def _listener(self, watched: Watched) -> Callable[[SourceEvent], None]:
        def hear(event: SourceEvent) -> None:
            watched.hear(event, self._clock())
            self._note(Event(time.time(), watched.label, event.state, event.detail))

        return hear
