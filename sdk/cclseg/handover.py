"""Handing items from one thread to the next without queues that grow or threads that hang."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """A bounded queue that either side can close."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Waits for room and adds an item; returns False once the channel is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def take(self, *, wait: bool = True) -> list[T]:
        """Returns one item, alone in a list.

        Args:
            wait: Wait for an item; otherwise the list is empty where none is there.

        Returns:
            The item; nothing once the channel is closed and drained.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or bool(self._items))
            taken = [self._items.popleft()] if self._items else []
            self._changed.notify_all()
            return taken

    def close(self, *, drop: bool = False) -> None:
        """Takes no more items; those inside are still handed out unless they are dropped."""
        with self._changed:
            self._closed = True
            if drop:
                self._items.clear()
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Lane:
    """What one of several queues side by side does when it is full.

    Attributes:
        capacity: Number of items that may wait.
        drops: Give up the oldest item for a new one, instead of letting the new one wait.
    """

    capacity: int
    drops: bool = False


class Lanes(Generic[T]):
    """Bounded queues side by side, emptied in turn so that a busy one starves no other.

    Example:
        >>> lanes = Lanes[str]([Lane(2), Lane(1, drops=True)])
        >>> for word in ("a", "b"):
        ...     put = lanes.put(0, word), lanes.put(1, word.upper())
        >>> [lanes.take() for _ in range(3)], lanes.dropped
        ([['a'], ['B'], ['b']], [0, 1])
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = tuple(lanes)
        self._queues: list[deque[T]] = [deque() for _ in lanes]
        self._open = [True] * len(lanes)
        self._next = 0
        self._changed = threading.Condition()
        self.dropped = [0] * len(lanes)
        """Items given up so far, by lane."""

    def put(self, lane: int, item: T) -> bool:
        """Adds an item, as its lane does; returns False once the lane is closed."""
        rule, queue = self._lanes[lane], self._queues[lane]
        with self._changed:
            if rule.drops and self._open[lane] and len(queue) == rule.capacity:
                queue.popleft()
                self.dropped[lane] += 1
            self._changed.wait_for(lambda: not self._open[lane] or len(queue) < rule.capacity)
            if not self._open[lane]:
                return False
            queue.append(item)
            self._changed.notify_all()
            return True

    def end(self, lane: int, item: T) -> None:
        """Closes a lane with a last item, which never waits and is never given up."""
        with self._changed:
            if self._open[lane]:
                self._open[lane] = False
                self._queues[lane].append(item)
                self._changed.notify_all()

    def end_all(self, item: T) -> None:
        """Closes all lanes with one last item, behind those that wait."""
        with self._changed:
            self._open = [False] * len(self._open)
            self._queues[0].append(item)
            self._changed.notify_all()

    def take(self, *, wait: bool = True) -> list[T]:
        """Returns the next item, alone in a list, of the lane whose turn it is.

        Args:
            wait: Wait for an item; otherwise the list is empty where none is there.

        Returns:
            The item; nothing once all lanes are closed and drained.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: any(self._queues) or not any(self._open))
            count = len(self._queues)
            for lane in ((self._next + step) % count for step in range(count)):
                if self._queues[lane]:
                    self._next = lane + 1
                    self._changed.notify_all()
                    return [self._queues[lane].popleft()]
            return []

    def close(self) -> None:
        """Closes all lanes and drops what waits in them."""
        with self._changed:
            self._open = [False] * len(self._open)
            for queue in self._queues:
                queue.clear()
            self._changed.notify_all()


class Background(Generic[T]):
    """Feeds items to a function in a thread of its own.

    Leaving the with statement waits until all items are done; leaving it with an exception drops
    those that wait. An exception of the function ends the thread and is raised by the next
    :meth:`put`, or when the with statement is left without another exception.

    Args:
        consume: Called with one item after another.
        waiting: Number of items that may wait.
    """

    def __init__(self, consume: Callable[[T], None], *, waiting: int) -> None:
        self._consume = consume
        self._channel: Channel[T] = Channel(waiting)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="cclseg-background", daemon=True)

    def put(self, item: T) -> None:
        """Waits for room and hands over one item."""
        if not self._channel.put(item) and self._failure is not None:
            raise self._failure

    def __enter__(self) -> Background[T]:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close(drop=error is not None)
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _run(self) -> None:
        try:
            while taken := self._channel.take():
                self._consume(taken[0])
        except BaseException as error:
            self._failure = error
            self._channel.close(drop=True)
