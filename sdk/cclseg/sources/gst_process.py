"""The frames of a GStreamer pipeline that runs in a child process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import SourceError
from ..gdp import GdpReader
from ..gstreamer import Pipeline, missing_element
from .live import DisconnectedError, EndOfStream

if TYPE_CHECKING:
    from ..gdp import RawFrame

_PIPE_BYTES = 1 << 20
_LEAVE_AFTER_S = 2.0


class GstProcess:
    """A running pipeline that ends in frames.

    Args:
        words: The pipeline up to its decoded frames, one argument each; no shell reads them.
        ranks: See :class:`~cclseg.gstreamer.Pipeline`.

    Raises:
        MissingDependencyError: GStreamer is not installed.
    """

    def __init__(self, words: Sequence[str], ranks: Mapping[str, int] | None = None) -> None:
        self._frames, theirs = os.pipe()
        try:
            with contextlib.suppress(OSError):  # a smaller pipe only costs more calls
                fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            tail = ("!", "gdppay", "!", "fdsink", f"fd={theirs}", "sync=false")
            self._pipeline = Pipeline(
                (*words, *tail), descriptors=[theirs], dies_with_us=True, ranks=ranks
            )
        except BaseException:
            os.close(self._frames)
            raise
        finally:
            os.close(theirs)
        self._reader = GdpReader(self._frames)

    def next_frame(self, timeout_s: float) -> RawFrame | None:
        """Returns the next frame, or None if it is not there in time.

        Raises:
            EndOfStream: The pipeline has come to its natural end.
            DisconnectedError: It failed.
            SourceError: It can never work: an element is missing, or the text is no pipeline.
        """
        self._pipeline.said()
        try:
            return self._reader.read(timeout_s)
        except EOFError as error:
            raise self._end() from error

    def close(self) -> None:
        """Ends the child. May be called twice."""
        if self._frames >= 0:
            os.close(self._frames)
            self._frames = -1
            # It has some time to say goodbye to an RTSP server, which may count its visitors.
            self._pipeline.end(patience_s=_LEAVE_AFTER_S)

    def _end(self) -> Exception:
        """Says why the pipeline has ended."""
        status = self._pipeline.wait(_LEAVE_AFTER_S)
        text = self._pipeline.said()
        missing = re.search(r'no element "([^"]+)"', text)
        if missing:
            return SourceError(missing_element(missing[1]))
        wrong = re.search(r"erroneous pipeline: (.+)", text)
        if wrong:
            return SourceError(
                f"this is no GStreamer pipeline: {wrong[1]}; try it in gst-launch-1.0"
            )
        if status == 0:
            return EndOfStream()
        ended = "does not end" if status is None else f"ended with status {status}"
        return DisconnectedError(self._pipeline.reason() or f"the pipeline {ended}")
