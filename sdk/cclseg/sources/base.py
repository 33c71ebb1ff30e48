"""The contract of a source: frames in order, from files or devices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from ..closing import Closing
from ..errors import CclsegError

if TYPE_CHECKING:
    from ..frame import Frame
    from .live import OnEvent

OnFrameError: TypeAlias = Callable[[str, CclsegError], None]
"""Called with the name of a frame that cannot be read, and why."""


class Source(Closing, ABC):
    """Frames in order.

    A subclass opens what it needs in ``__init__`` and implements :meth:`frames`. It is a context
    manager, and iterating over it twice reads the frames twice.

    Attributes:
        name: Stem for the names of results ("flight_07").
        total: Number of frames, None where it is not known before the end.
        fps: Frames per second of a moving source, None where it has none or does not say.
        live: Frames come at their own time, and what is not taken is lost.
    """

    name: str
    total: int | None = None
    fps: float | None = None
    live: bool = False

    @abstractmethod
    def frames(self, *, on_error: OnFrameError | None = None) -> Iterator[Frame]:
        """Yields the frames in order.

        Args:
            on_error: Called for a frame that cannot be read; reading goes on with the next one.
                None raises the error instead.

        Raises:
            InputError: A frame cannot be read, and ``on_error`` is None.
            SourceError: The source as a whole cannot be read (any further).
        """

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def interrupt(self) -> None:
        """Ends every iteration that waits for a frame, for good. Any thread may call it."""

    def restart(self, reason: str) -> bool:
        """Gives up a connection that brings no frames, for a new one. Any thread may call it.

        Args:
            reason: Why, for the source's events.

        Returns:
            Whether the source can do that.
        """
        return False

    def listen(self, on_event: OnEvent) -> None:
        """Lets a function hear what happens to the source; nothing ever happens to files."""
