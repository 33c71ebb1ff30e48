"""Small pictures for reports: photographs, class maps, error maps, all shrunk to one width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .frame import Image, Mask

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="drawing") from error

_UNLABELLED_BGR = (128, 128, 128)


def photograph(image: NDArray[Any]) -> Image:
    """Shows any number of bands: the first three as red, green and blue, or the first as grey.

    Args:
        image: (H, W, C) of any type; what is not uint8 is stretched between its extremes.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    bands = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1].repeat(3, axis=2)
    if bands.dtype != np.uint8:
        finite = np.where(np.isfinite(bands), bands, np.nan)
        low, high = float(np.nanmin(finite)), float(np.nanmax(finite))
        bands = (np.nan_to_num(finite - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
    return np.ascontiguousarray(bands[:, :, ::-1])


def coloured(mask: Mask, palette: Sequence[tuple[int, int, int]]) -> Image:
    """Paints class ids, grey where a pixel has no class.

    Args:
        mask: (H, W) class ids.
        palette: One (red, green, blue) colour per class id.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    colours = np.array([*(rgb[::-1] for rgb in palette), _UNLABELLED_BGR], np.uint8)
    return np.asarray(colours[np.minimum(mask, len(palette))], np.uint8)


def marked(image: Image, marks: Sequence[tuple[NDArray[np.bool_], tuple[int, int, int]]]) -> Image:
    """Dims an image to grey and paints sets of pixels over it, later ones on top.

    Args:
        image: (H, W, 3) uint8.
        marks: Pairs of (H, W) bool and a BGR colour.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    shown = np.repeat(image.mean(axis=2, keepdims=True) * 0.45 + 30, 3, axis=2)
    for where, bgr in marks:
        shown[where] = 0.3 * shown[where] + 0.7 * np.array(bgr)
    return shown.astype(np.uint8)


def shrunk(image: Image, width_px: int, *, classes: bool = False) -> Image:
    """Shrinks an image to a width; one that is narrower stays as it is.

    Args:
        image: (H, W, 3) uint8.
        width_px: Width of the result.
        classes: Take the nearest pixel, so that no colour appears that is no class's.
    """
    scale = min(1.0, width_px / image.shape[1])
    size_wh = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    how = cv2.INTER_NEAREST if classes else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size_wh, interpolation=how), np.uint8)
