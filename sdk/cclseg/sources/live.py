"""Sources that live: they connect, stall, get lost and come back."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from ..backoff import backoff_s
from ..errors import SourceError
from ..frame import Frame
from .base import OnFrameError, Source

if TYPE_CHECKING:
    from ..gdp import RawFrame

_log = logging.getLogger(__name__)

State = Literal["connecting", "live", "stalled", "lost", "restored"]

# How soon an interrupt is noticed.
_SLICE_S = 0.1


class DisconnectedError(SourceError):
    """The connection to a source is lost; it may come back."""


class EndOfStream(Exception):  # noqa: N818 - no error
    """A source has come to its natural end."""


class Connection(Protocol):
    """One connection to a camera or stream."""

    def next_frame(self, timeout_s: float) -> RawFrame | None:
        """Returns the next frame, or None if it is not there in time.

        Raises:
            EndOfStream: No more frames will come.
            DisconnectedError: The connection is lost.
            SourceError: It can never work.
        """

    def close(self) -> None:
        """Frees the connection. May be called twice."""


@dataclass(frozen=True, slots=True)
class SourceEvent:
    """Something happened to a live source.

    Attributes:
        source: Name of the source.
        state: What it is now. "stalled": no frame came for a while, the connection still stands;
            "restored": frames come again after it was stalled or lost.
        detail: What happened, in words; may be empty.
        retry_s: Seconds until the next attempt to connect; None where none is planned.
    """

    source: str
    state: State
    detail: str = ""
    retry_s: float | None = None


OnEvent: TypeAlias = Callable[[SourceEvent], None]
"""Called in the thread that reads the source."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a source, and how often to try again.

    Attributes:
        connect_s: A connection without a first frame is given up after this time.
        stall_s: A source is stalled when no frame came for this time.
        lost_s: A stalled connection is given up when no frame came for this time.
        first_retry_s: Wait before the first attempt to connect again.
        longest_retry_s: Each further wait is twice as long, up to this one.
        jitter: Share by which a wait is made longer or shorter at random.
        attempts: Connections in a row without a frame after which the source ends with the
            error; None for never.
    """

    connect_s: float = 15.0
    stall_s: float = 2.0
    lost_s: float = 8.0
    first_retry_s: float = 0.5
    longest_retry_s: float = 30.0
    jitter: float = 0.25
    attempts: int | None = None

    def retry_s(self, failures: int, chance: float) -> float:
        """Returns how long to wait after a number of failures in a row.

        Args:
            failures: At least 1.
            chance: A random number in [0, 1).
        """
        return backoff_s(
            failures,
            chance,
            first_s=self.first_retry_s,
            longest_s=self.longest_retry_s,
            jitter=self.jitter,
        )


class SourceClock:
    """Tells when frames were captured, from the stamps of a pipeline with a clock of its own.

    The frame that took the shortest way to us sets the offset between the pipeline's clock and
    this machine's, so a frame that waited somewhere shows it in its age. What every frame needs
    from the lens to us (exposure, encoding, the network, the jitter buffer) cannot be seen from
    here and is not in it.
    """

    def __init__(self) -> None:
        self._offset_ns: int | None = None
        self._last: tuple[int | None, int] | None = None
        self._elapsed_ns = 0

    def read(self, time_ns: int | None, arrived_ns: int) -> tuple[int, float]:
        """Reads the clock for the next frame.

        Args:
            time_ns: By the pipeline's clock; None where it does not say.
            arrived_ns: By ``time.monotonic_ns``.

        Returns:
            When it was captured by ``time.monotonic_ns``, at the latest when it arrived; and the
            seconds since the first frame, which never run backwards.
        """
        last_ns, last_captured_ns = self._last or (None, None)
        if time_ns is None:
            captured_ns = arrived_ns
        else:
            offset_ns = arrived_ns - time_ns
            if self._offset_ns is None or offset_ns < self._offset_ns or time_ns < (last_ns or 0):
                self._offset_ns = offset_ns  # the shortest way so far, or the clock was set back
            captured_ns = time_ns + self._offset_ns
        if time_ns is not None and last_ns is not None and time_ns >= last_ns:
            self._elapsed_ns += time_ns - last_ns
        elif last_captured_ns is not None:
            self._elapsed_ns += max(0, captured_ns - last_captured_ns)
        self._last = time_ns, captured_ns
        return captured_ns, self._elapsed_ns / 1e9

    def restart(self) -> None:
        """Expects another pipeline, whose clock may show any time; the seconds go on."""
        self._offset_ns = None
        if self._last is not None:
            self._last = None, self._last[1]


class LiveSource(Source):
    """A camera or stream that is connected to again whenever it is lost.

    Args:
        connect: Makes a connection.
        name: Stem for the names of results.
        ends: Its end of stream is the end of the source, not a loss.
        patience: How long to wait and how often to try.
        on_event: Hears what happens to the source; it is also logged.

    Example:
        >>> with open_source("rtsp://10.0.0.7/live", on_event=print) as camera:  # doctest: +SKIP
        ...     for frame in camera:
        ...         print(frame.index, frame.timestamp_s)
    """

    live = True

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        name: str,
        ends: bool = False,
        patience: Patience | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self.name = name
        self._connect = connect
        self._ends = ends
        self._patience = patience or Patience()
        self._on_event = on_event
        self._off = threading.Event()

    def frames(self, *, on_error: OnFrameError | None = None) -> Iterator[Frame]:
        """Yields frames as they come, from one connection after another.

        Raises:
            SourceError: The source can never work, or the attempts are used up.
        """
        failures, index, detail = 0, 0, ""
        clock = SourceClock()
        while not self._off.is_set():
            self._tell("connecting")
            clock.restart()
            try:
                with closing(self._connect()) as connection:
                    for raw in self._received(connection, first=not index):
                        failures = 0
                        captured_ns, timestamp_s = clock.read(raw.time_ns, time.monotonic_ns())
                        yield Frame(
                            image=raw.image,
                            index=index,
                            name=f"frame_{index:06d}",
                            timestamp_s=timestamp_s,
                            captured_ns=captured_ns,
                        )
                        index += 1
            except EndOfStream:
                if self._ends:
                    return
                detail = "the other side has ended the stream"
            except DisconnectedError as error:
                detail = str(error)
            if self._off.is_set():
                return
            failures += 1
            self._wait(failures, detail)

    def _received(self, connection: Connection, *, first: bool) -> Iterator[RawFrame]:
        """Yields the frames of one connection, and ends it when it has been silent too long."""
        state: State = "connecting"
        heard_s = time.monotonic()
        while not self._off.is_set():
            raw = connection.next_frame(_SLICE_S)
            if raw is not None:
                if state != "live":
                    self._tell("live" if first and state == "connecting" else "restored")
                state = "live"
                yield raw
                heard_s = time.monotonic()  # the time of who takes the frames is not silence
                continue
            silent_s = time.monotonic() - heard_s
            patience = self._patience
            if silent_s > (patience.connect_s if state == "connecting" else patience.lost_s):
                raise DisconnectedError(f"no frame for {silent_s:.1f} s")
            if state == "live" and silent_s > patience.stall_s:
                state = "stalled"
                self._tell(state, f"no frame for {silent_s:.1f} s")

    def _wait(self, failures: int, detail: str) -> None:
        attempts = self._patience.attempts
        if attempts is not None and failures >= attempts:
            raise SourceError(f"{self.name} is lost: {detail}; gave up after {failures} attempts")
        retry_s = self._patience.retry_s(failures, random.random())
        self._tell("lost", detail, retry_s)
        self._off.wait(retry_s)

    def _tell(self, state: State, detail: str = "", retry_s: float | None = None) -> None:
        level = logging.WARNING if state in ("stalled", "lost") else logging.INFO
        retry = "" if retry_s is None else f"; next attempt in {retry_s:.1f} s"
        _log.log(level, "%s is %s%s%s", self.name, state, f": {detail}" if detail else "", retry)
        if self._on_event is not None:
            self._on_event(SourceEvent(self.name, state, detail, retry_s))

    def interrupt(self) -> None:
        """Ends the source for good; see :meth:`Source.interrupt`."""
        self._off.set()

    def close(self) -> None:
        """Ends the source for good. May be called twice."""
        self.interrupt()
