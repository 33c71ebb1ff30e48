"""The newest result as a picture, made once for all who watch, and only while somebody does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MissingDependencyError

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="drawing masks") from error

if TYPE_CHECKING:
    from ..frame import Image
    from ..result import Segmentation

_LONGEST_SIDE_PX = 1280
_QUALITY = 80
_PICTURES_PER_S = 15
# Drawing takes at most a third of one processor, however large the frames are.
_REST_PER_WORK = 2.0


class Pictures:
    """Pictures of one stream, in one event loop; a watcher that is slow misses some.

    Args:
        newest: Returns the newest result.
        executor: Where pictures are drawn.
    """

    def __init__(self, newest: Callable[[], Segmentation | None], executor: Executor) -> None:
        self._newest = newest
        self._executor = executor
        self._watchers = 0
        self._drawing: asyncio.Task[None] | None = None
        self._forget()

    def _forget(self) -> None:
        self._number, self._jpeg = 0, b""
        self._changed = asyncio.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Draws pictures until the last watcher has left."""
        self._watchers += 1
        if self._drawing is None:
            self._drawing = asyncio.create_task(self._draw_all())
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._drawing.cancel()
                self._drawing = None
                self._forget()

    async def next(self, after: int, *, longest_s: float) -> tuple[int, bytes]:
        """Returns the number of the newest picture, and it as JPEG.

        Args:
            after: Number of the picture that the watcher has; a later one is waited for.
            longest_s: But not longer than this: then it is the same one again, or none (empty).
        """
        if self._number <= after:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), longest_s)
        if self._drawing is not None and self._drawing.done():
            self._drawing.result()  # raises what ended it
        return self._number, self._jpeg

    async def _draw_all(self) -> None:
        try:
            await self._draw()
        except Exception:
            self._changed.set()  # who waits for a picture gets the error
            raise

    async def _draw(self) -> None:
        loop = asyncio.get_running_loop()
        drawn: Segmentation | None = None
        while True:
            start_s, newest = loop.time(), self._newest()
            if newest is not None and newest is not drawn:
                jpeg = await loop.run_in_executor(self._executor, jpeg_of, newest)
                drawn = newest
                self._number, self._jpeg = self._number + 1, jpeg
                self._changed.set()
                self._changed = asyncio.Event()
            worked_s = loop.time() - start_s
            await asyncio.sleep(max(1 / _PICTURES_PER_S - worked_s, _REST_PER_WORK * worked_s))


def jpeg_of(result: Segmentation) -> bytes:
    """Draws a result over its frame and encodes it, no side longer than 1280 pixels."""
    assert result.frame is not None
    drawn = result.overlay(_as_bgr(result.frame.image))
    height, width = drawn.shape[:2]
    scale = _LONGEST_SIDE_PX / max(height, width)
    if scale < 1:
        size_wh = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(drawn, size_wh, interpolation=cv2.INTER_AREA)
        drawn = np.asarray(small, np.uint8)
    done, buffer = cv2.imencode(".jpg", drawn, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
    assert done, "OpenCV encodes every (H, W, 3) uint8 image as JPEG"
    return bytes(buffer.tobytes())


def _as_bgr(image: Image) -> Image:
    """Shows the first band of an image that is no colour picture in grey."""
    if image.shape[2] == 3:
        return image
    return np.repeat(image[:, :, :1], 3, axis=2)
