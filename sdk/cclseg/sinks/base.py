"""The contract of a sink: results go in one by one and stand under their final names when done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..frame import Frame
    from ..result import Segmentation


class Sink(ABC):
    """Writes results, whole or not at all.

    A subclass implements :meth:`write`, and :meth:`finish` and :meth:`abort` where its file is
    only whole at the end. It is a context manager: leaving it without an exception finishes,
    leaving it with one aborts. After a crash or an abort no half-written file stands under a final
    name.

    Attributes:
        target: The file or folder that is written, or the address that is sent to.
        encoder: What encodes a video ("H.264 by x264enc"), known after its first frame.
    """

    target: Path | str
    encoder: str | None = None

    @abstractmethod
    def write(self, frame: Frame, result: Segmentation) -> None:
        """Writes the result of one frame.

        Raises:
            InputError: This result cannot go into this sink; others may.
            SinkError: Nothing can be written any more.
        """

    def finish(self) -> None:  # noqa: B027 - sinks that write file by file are whole at any time
        """Completes what is written.

        Raises:
            SinkError: It cannot be completed.
        """

    def abort(self) -> None:  # noqa: B027
        """Removes what is not complete."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.abort()


def check_not_input(target: Path, frame: Frame) -> None:
    """Refuses to write over the file that a frame was read from.

    Raises:
        InputError: It is the same file.
    """
    if frame.path is not None and target.exists() and target.samefile(frame.path):
        raise InputError(f"{target} is the input itself; write the results into another folder")
