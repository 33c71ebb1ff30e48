"""Frames that another program's callback hands in, such as a ROS 2 subscription."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import InputError
from ..frame import Frame
from .base import OnFrameError, Source

if TYPE_CHECKING:
    from ..frame import Image

Message = TypeVar("Message")


class TopicSource(Source, Generic[Message]):
    """The newest message of a topic as a frame, whenever one is asked for.

    Messages that come before the last one was taken replace it, and are counted.

    Args:
        name: Stem for the names of results.
        to_image: Makes the (H, W, C) uint8 image of a message, in the thread that takes frames.

    Attributes:
        dropped: Messages that newer ones replaced.
    """

    live = True

    def __init__(self, name: str, to_image: Callable[[Message], Image]) -> None:
        self.name = name
        self.dropped = 0
        self._to_image = to_image
        self._waiting: tuple[Message, int] | None = None
        self._messages: dict[int, Message] = {}
        self._off = False
        self._changed = threading.Condition()

    def put(self, message: Message) -> None:
        """Hands in a message, which is kept until a newer one comes or its result is out."""
        with self._changed:
            self.dropped += self._waiting is not None
            self._waiting = message, time.monotonic_ns()
            self._changed.notify_all()

    def frames(self, *, on_error: OnFrameError | None = None) -> Iterator[Frame]:
        """Yields the newest message as it comes; see :meth:`Source.frames`."""
        index = 0
        while (taken := self._next()) is not None:
            message, arrived_ns = taken
            name = f"frame_{index:06d}"
            try:
                image = self._to_image(message)
            except InputError as error:
                if on_error is None:
                    raise
                on_error(name, error)
                continue
            with self._changed:
                self._messages[index] = message
            yield Frame(image, index, name, captured_ns=arrived_ns)
            index += 1

    def message_of(self, frame: Frame) -> Message:
        """Returns the message that a frame came from, once; those before it are forgotten."""
        with self._changed:
            for index in [index for index in self._messages if index < frame.index]:
                del self._messages[index]
            return self._messages.pop(frame.index)

    def _next(self) -> tuple[Message, int] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._off or self._waiting is not None)
            taken, self._waiting = (None if self._off else self._waiting), None
            return taken

    def interrupt(self) -> None:
        """Ends the source for good; see :meth:`Source.interrupt`."""
        with self._changed:
            self._off = True
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the source for good. May be called twice."""
        self.interrupt()
