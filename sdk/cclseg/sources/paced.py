"""Files at the rate at which they were filmed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import SourceError
from .base import OnFrameError, Source

if TYPE_CHECKING:
    from ..frame import Frame


class RealTimeSource(Source):
    """Another source, each frame handed out when its time has come, as a camera would.

    A caller that is late gets the next frames at once, until it has caught up.

    Example:
        >>> with open_source("realtime:flight.mp4") as camera:  # doctest: +SKIP
        ...     for frame in camera:
        ...         print(frame.timestamp_s)
    """

    live = True

    def __init__(self, source: Source) -> None:
        if source.fps is None:
            raise SourceError(
                f"{source.name} has no times to keep; real time is for videos and virtual flights"
            )
        self.name, self.total, self.fps = source.name, source.total, source.fps
        self._source = source
        self._off = threading.Event()

    def frames(self, *, on_error: OnFrameError | None = None) -> Iterator[Frame]:
        """Yields the frames at their times; see :meth:`Source.frames`."""
        start_s: float | None = None
        for frame in self._source.frames(on_error=on_error):
            now_s = time.monotonic()
            start_s = now_s - (frame.timestamp_s or 0.0) if start_s is None else start_s
            due_s = start_s + (frame.timestamp_s or 0.0)
            if self._off.wait(max(0.0, due_s - now_s)):
                return
            yield frame

    def interrupt(self) -> None:
        """Ends the source for good; see :meth:`Source.interrupt`."""
        self._off.set()
        self._source.interrupt()

    def close(self) -> None:
        """Closes the source behind it. May be called twice."""
        self.interrupt()
        self._source.close()
