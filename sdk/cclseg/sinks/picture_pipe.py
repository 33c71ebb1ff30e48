"""Pictures into a GStreamer pipeline that runs in a child process."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import SinkError
from ..gdp import packed_frame, packed_start
from ..gstreamer import Pipeline

if TYPE_CHECKING:
    from ..frame import Image

_LEAVE_AFTER_S = 2.0
_LIVE_PATIENCE_S = 5.0
# The last pictures are encoded when no more come.
_FINISH_WITHIN_S = 60.0


class PicturePipe:
    """A running pipeline that takes pictures with their times.

    Args:
        name: What it does, for messages ("H.264 by x264enc").
        words: The pipeline from its pictures on, one argument each; no shell reads them.
        size_hw: Size of the pictures.
        fps: Their usual rate; each one has a time of its own.
        descriptors: Open files that the pipeline's elements use by their numbers.
        live: It must take pictures as they come, has failed when it does not, and ends with this
            process. Then the thread that made it must close it, as with ``dies_with_us`` of
            :class:`~cclseg.gstreamer.Pipeline`.

    Raises:
        MissingDependencyError: GStreamer is not installed.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        size_hw: tuple[int, int],
        *,
        fps: float,
        descriptors: Sequence[int] = (),
        live: bool = False,
    ) -> None:
        self.name = name
        self._live = live
        theirs, self._pictures = os.pipe()
        try:
            os.set_blocking(self._pictures, not live)
            self._pipeline = Pipeline(
                ("fdsrc", f"fd={theirs}", "!", "gdpdepay", "!", "videoconvert", *words),
                descriptors=[theirs, *descriptors],
                dies_with_us=live,
            )
        except BaseException:
            os.close(self._pictures)
            raise
        finally:
            os.close(theirs)
        self._head = packed_start(size_hw, fps=fps)

    def append(self, picture: Image, time_s: float) -> None:
        """Appends a picture.

        Args:
            picture: (H, W, 3) uint8 BGR.
            time_s: When it is shown, later than the one before.

        Raises:
            SinkError: The pipeline has failed.
        """
        self._send(self._head + packed_frame(picture, round(time_s * 1e9)))
        self._head = b""

    def _send(self, data: bytes) -> None:
        self._pipeline.said()
        view = memoryview(data)
        try:
            while view:
                if self._live:
                    self._wait_for_room()
                view = view[os.write(self._pictures, view) :]
        except BrokenPipeError as error:
            self._pipeline.wait(_LEAVE_AFTER_S)
            raise SinkError(f"{self.name} failed: {self._reason()}") from error

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._pictures, select.POLLOUT)
        if not poll.poll(_LIVE_PATIENCE_S * 1000):
            raise SinkError(f"{self.name} failed: it took nothing for {_LIVE_PATIENCE_S:.0f} s")

    def close(self) -> None:
        """Lets the pipeline complete its work. May be called twice.

        Raises:
            SinkError: It could not.
        """
        if self._pictures < 0:
            return
        self._close_pipe()
        status = self._pipeline.wait(_LIVE_PATIENCE_S if self._live else _FINISH_WITHIN_S)
        self._pipeline.end(patience_s=_LEAVE_AFTER_S)
        if status != 0:
            raise SinkError(f"{self.name} failed: {self._reason()}")

    def abort(self) -> None:
        """Ends the pipeline, whatever becomes of its work. May be called twice."""
        if self._pictures >= 0:
            self._close_pipe()
            self._pipeline.end(patience_s=_LEAVE_AFTER_S)

    def _close_pipe(self) -> None:
        os.close(self._pictures)
        self._pictures = -1

    def _reason(self) -> str:
        return self._pipeline.reason() or "it has ended without a word"
