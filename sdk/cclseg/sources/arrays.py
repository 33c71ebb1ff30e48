"""Frames that a program already has in memory, or makes one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized

import numpy as np

from ..errors import InputError
from ..frame import Frame, Image
from .base import OnFrameError, Source


class ArraySource(Source):
    """The images of any iterable, such as a list or a generator that asks a camera's driver.

    A list can be read twice, a generator once.

    Args:
        images: (H, W, C) uint8 arrays, OpenCV order for three channels; they are not copied.
        live: They come at their own time, and what is not taken is lost.

    Example:
        >>> frames = ArraySource(np.zeros((2, 48, 64, 3), np.uint8))
        >>> [frame.name for frame in frames]
        ['frame_000000', 'frame_000001']
    """

    def __init__(
        self, images: Iterable[Image], *, name: str = "arrays", live: bool = False
    ) -> None:
        self.name = name
        self.live = live
        self.total = len(images) if isinstance(images, Sized) else None
        self._images = images

    def frames(self, *, on_error: OnFrameError | None = None) -> Iterator[Frame]:
        """Yields one frame per image; see :meth:`Source.frames`."""
        for index, image in enumerate(self._images):
            name = f"frame_{index:06d}"
            if isinstance(image, np.ndarray):
                yield Frame(image, index, name)
                continue
            error = InputError(
                f"'{self.name}' gave a {type(image).__name__} as frame {index}; expected a numpy "
                "array (H, W, C) uint8"
            )
            if on_error is None:
                raise error
            on_error(name, error)
