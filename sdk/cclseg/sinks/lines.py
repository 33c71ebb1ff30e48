"""Figures of each frame as lines of JSON, for other programs to follow."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SinkError
from ..files import make_folder
from .base import Sink, check_not_input
from .records import record_of

if TYPE_CHECKING:
    from ..frame import Frame
    from ..result import Segmentation


class LinesSink(Sink):
    """A ``.jsonl`` file with one line per frame; see :func:`cclseg.sinks.records.record_of`.

    Every line is whole as soon as it stands in the file, which grows under its final name, so a
    program can follow it (``tail -f``) and a crash costs no line. What stood there before is
    replaced by the first line.

    Example:
        >>> with open_sink("water.jsonl") as sink:  # doctest: +SKIP
        ...     for out in segmenter.stream("rtsp://10.0.0.7/live"):
        ...         sink.write(out.frame, out)
    """

    target: Path

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        self.target = path
        self._descriptor: int | None = None
        self._bytes = 0

    def write(self, frame: Frame, result: Segmentation) -> None:
        """Appends one line.

        Raises:
            SinkError: The disk is full or the file cannot be written.
        """
        line = json.dumps(record_of(frame, result), ensure_ascii=False)
        try:
            self._append(frame, line.encode() + b"\n")
        except OSError as error:
            raise SinkError(
                f"cannot write {self.target}: {error.strerror}; free space or choose another place"
            ) from error

    def _append(self, frame: Frame, line: bytes) -> None:
        if self._descriptor is None:
            check_not_input(self.target, frame)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._descriptor = os.open(self.target, flags, 0o666)
        written = os.write(self._descriptor, line)
        if written < len(line):  # a disk that is nearly full takes a part
            os.ftruncate(self._descriptor, self._bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._bytes += len(line)

    def finish(self) -> None:
        """Flushes the lines to the disk."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            self.abort()

    def abort(self) -> None:
        """Closes the file; its lines are whole and stay."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
