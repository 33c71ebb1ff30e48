"""Handing items from one thread to the next without queues that grow or threads that hang."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class _Channel(Generic[T]):
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

    def take(self) -> list[T]:
        """Waits for an item and returns it alone; empty once the channel is closed and drained."""
        with self._changed:
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


def prefetched(items: Iterable[T], *, ahead: int) -> Generator[T, None, None]:
    """Yields items that a thread of its own fetches ahead.

    An exception of the thread is raised here, after the items before it. Closing the generator
    stops the thread and waits for it, so that nothing of ``items`` runs afterwards.

    Args:
        items: Iterated over in the thread.
        ahead: Number of fetched items that may wait.
    """
    channel: _Channel[T] = _Channel(ahead)
    failure: list[BaseException] = []

    def fetch() -> None:
        try:
            for item in items:
                if not channel.put(item):
                    return
        except BaseException as error:
            failure.append(error)
        finally:
            if isinstance(items, Generator):  # it may hold a file open
                items.close()
            channel.close()

    thread = threading.Thread(target=fetch, name="cclseg-prefetch", daemon=True)
    thread.start()
    try:
        while taken := channel.take():
            yield taken[0]
    finally:
        channel.close(drop=True)
        thread.join()
    if failure:
        raise failure[0]


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
        self._channel: _Channel[T] = _Channel(waiting)
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
