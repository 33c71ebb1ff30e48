"""Cutting a crop out of an image: zoom, angle and reflection in one warp."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from .bands import in_fours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .config import TrainConfig
    from .mixing import Crop


def pyramid(image: NDArray[Any], mask: NDArray[Any]) -> list[Crop]:
    """Returns (image, mask) at full, half, quarter ... size, images low-pass filtered."""
    levels = [(image, mask)]
    while min(levels[-1][1].shape) >= 256:
        image, mask = levels[-1]
        height, width = mask.shape[0] // 2, mask.shape[1] // 2
        halved = in_fours(image, partial(_shrunk, size_wh=(width, height)))
        levels.append((halved, mask[: 2 * height : 2, : 2 * width : 2]))
    return levels


def cut(
    levels: Sequence[Crop], place: tuple[int, int], config: TrainConfig, rng: np.random.Generator
) -> Crop:
    """Draws a zoom, an angle and a reflection, and cuts the crop in one warp.

    Args:
        levels: The image with its mask at full, half, quarter ... size.
        place: The (y, x) near whose middle the crop lies, at full size.
        config: Size of the crop, and the zooms to draw from.
        rng: Source of randomness.
    """
    y, x = place
    size = config.crop_px
    low, high = config.augment.scale
    low = min(max(low, size / min(levels[0][1].shape)), high)  # the crop fits into the image
    zoom = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    level = min(int(max(np.floor(-np.log2(zoom)), 0)), len(levels) - 1)
    image, mask = levels[level]
    shrink = 2.0**level
    angle = rng.uniform(0, 2 * np.pi)
    flip = rng.choice((-1.0, 1.0))
    step = 1 / (zoom * shrink)  # source pixels per crop pixel
    matrix = step * np.array(
        [[np.cos(angle) * flip, -np.sin(angle)], [np.sin(angle) * flip, np.cos(angle)]]
    )
    jitter = rng.uniform(-0.25, 0.25, 2) * size
    centre = np.array([x, y]) / shrink
    offset = centre - matrix @ (np.array([size / 2, size / 2]) + jitter)
    affine = np.column_stack([matrix, offset])
    warped_mask = cv2.warpAffine(
        mask,
        affine,
        (size, size),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return _warp(image, affine, size), warped_mask


def _shrunk(image: NDArray[Any], size_wh: tuple[int, int]) -> NDArray[Any]:
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)


def _warp(image: NDArray[Any], affine: NDArray[np.float64], size: int) -> NDArray[Any]:
    """Warps any number of bands; ``affine`` maps crop pixels to image pixels."""
    return in_fours(
        image,
        lambda bands: cv2.warpAffine(
            bands,
            affine,
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        ),
    )
