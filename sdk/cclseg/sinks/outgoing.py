"""Overlay video to other machines, as it comes."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from ..backoff import backoff_s
from ..gstreamer import has_element
from ..handover import Lane, Lanes
from .base import Sink
from .gst_outputs import output_for
from .picture_pipe import PicturePipe
from .pictures import even, fitted

if TYPE_CHECKING:
    from ..frame import Frame, Image
    from ..result import Segmentation

_log = logging.getLogger(__name__)

_DEFAULT_FPS = 10.0
_WAITING_PICTURES = 2
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 30.0
# A connection that held this long was a good one.
_HELD_S = 10.0


class OutgoingVideoSink(Sink):
    """Frames with their classes laid over them, as a live H.264 stream to a receiver or server.

    It never holds results up: pictures that come faster than they can be sent are given up, the
    oldest first, and so are those that come while the receiver cannot be reached, which is tried
    again and again. All pictures have the size of the first one. They are shown as they come: a
    stream has no other time.

    Example:
        >>> with open_sink("rtp://10.0.0.9:5600") as sink:  # doctest: +SKIP
        ...     for out in segmenter.stream("csi://0"):
        ...         sink.write(out.frame, out)
    """

    def __init__(self, text: str, *, fps: float | None = None) -> None:
        self._fps = fps or _DEFAULT_FPS
        self._output = output_for(text, fps=self._fps, has=has_element)
        self.target = self._output.shown
        self.encoder = f"H.264 by {self._output.encoder}"
        self._size_hw = (0, 0)
        self._written = self._sent = 0
        self._failure: BaseException | None = None
        self._waiting = Lanes["Image | None"]([Lane(_WAITING_PICTURES, drops=True)])
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cclseg-outgoing", daemon=True)

    @property
    def dropped(self) -> int:
        """Pictures that went into no connection; what a broken one swallowed is not known."""
        return self._written - self._sent

    def write(self, frame: Frame, result: Segmentation) -> None:
        """Hands over one picture, without waiting for it to be sent."""
        if self._failure is not None:
            raise self._failure
        picture = result.overlay(frame.image)
        if not self._written:
            self._size_hw = frame.size_hw
            self._thread.start()
        if frame.size_hw != self._size_hw:
            picture = fitted(picture, self._size_hw)
        self._waiting.put(0, even(picture))
        self._written += 1

    def finish(self) -> None:
        """Sends the pictures that wait and says goodbye, if the receiver listens."""
        self._waiting.end(0, None)
        self._leave()
        if self.dropped:
            _log.warning("%s: %d pictures were not sent", self.target, self.dropped)

    def abort(self) -> None:
        """Ends the stream."""
        self._waiting.close()
        self._leave()

    def _leave(self) -> None:
        self._ending.set()
        if self._written:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._send()
        except BaseException as error:  # raised by the next write
            self._failure = error

    def _send(self) -> None:
        """Sends pictures through one connection after another, until no more come."""
        failures = 0
        while True:
            start_s = time.monotonic()
            try:
                self._send_through_one_connection()
                return
            except OSError as error:
                failures = 1 if time.monotonic() - start_s > _HELD_S else failures + 1
                retry_s = backoff_s(
                    failures, random.random(), first_s=_FIRST_RETRY_S, longest_s=_LONGEST_RETRY_S
                )
                _log.warning("%s: %s; next attempt in %.1f s", self.target, error, retry_s)
            if self._ending.wait(retry_s):
                return

    def _send_through_one_connection(self) -> None:
        """Connects with the first picture; returns when no more pictures come."""
        pipe: PicturePipe | None = None
        start_s = time.monotonic()
        try:
            while taken := self._waiting.take():
                picture = taken[0]
                if picture is None:
                    break
                if pipe is None:
                    start_s, pipe = time.monotonic(), self._connected(picture)
                pipe.append(picture, time.monotonic() - start_s)
                self._sent += 1
            if pipe is not None and taken:
                pipe.close()
        finally:
            if pipe is not None:
                pipe.abort()

    def _connected(self, picture: Image) -> PicturePipe:
        size_hw = (picture.shape[0], picture.shape[1])
        words = self._output.words
        return PicturePipe("the connection", words, size_hw, fps=self._fps, live=True)
