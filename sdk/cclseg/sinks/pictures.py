"""Pictures made to fit a video."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import MissingDependencyError

if TYPE_CHECKING:
    from ..frame import Image

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="writing videos") from error


def fitted(picture: Image, size_hw: tuple[int, int]) -> Image:
    """Scales a picture into the middle of a black one of another size; its shape stays."""
    scale = min(size_hw[0] / picture.shape[0], size_hw[1] / picture.shape[1])
    height, width = (
        min(target, max(1, round(n * scale)))
        for target, n in zip(size_hw, picture.shape, strict=False)
    )
    top, left = (size_hw[0] - height) // 2, (size_hw[1] - width) // 2
    fitted = np.zeros((*size_hw, 3), np.uint8)
    fitted[top : top + height, left : left + width] = cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_AREA
    )
    return fitted


def even(picture: Image) -> Image:
    """Repeats the last row or column of a picture of odd size."""
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return picture
