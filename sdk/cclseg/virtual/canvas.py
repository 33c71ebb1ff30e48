"""Raster layers of a scene and the strokes that paint on them.

All layers are painted without blending at edges, so that the label of a pixel is the class of
what gives the pixel its colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._cv import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .noise import Field
    from .plan import Points, Rgb

SHORE, VERGE = 1, 2
"""Reasons why nothing may be built on a pixel."""

_SHIFT = 4  # fractional bits of coordinates


class Canvas:
    """The layers of a square scene.

    Attributes:
        gsd_m: Side of a pixel in metres.
        label: (N, N) uint8 class ids.
        albedo: (N, N, 3) uint8, blue, green, red reflectance.
        height_m: (N, N) float32 height above ground.
        blocked: (N, N) uint8: SHORE or VERGE where nothing may be built, else 0.
    """

    def __init__(self, size_px: int, gsd_m: float) -> None:
        self.gsd_m = gsd_m
        self.label: NDArray[np.uint8] = np.ones((size_px, size_px), np.uint8)
        self.albedo: NDArray[np.uint8] = np.zeros((size_px, size_px, 3), np.uint8)
        self.height_m: Field = np.zeros((size_px, size_px), np.float32)
        self.blocked: NDArray[np.uint8] = np.zeros((size_px, size_px), np.uint8)

    @property
    def size_px(self) -> int:
        """Side in pixels."""
        return int(self.label.shape[0])

    def is_outside(self, points: Points) -> bool:
        """Says whether the box of the points misses the scene."""
        extent = self.size_px * self.gsd_m
        low, high = points.min(axis=0), points.max(axis=0)
        return bool((high < 0).any() or (low > extent).any())

    def fill(
        self,
        outline: Points,
        *,
        label: int | None = None,
        rgb: Rgb | None = None,
        height_m: float | None = None,
    ) -> None:
        """Paints a polygon on the layers that are given a value."""
        corners = self._fixed(outline)
        if label is not None:
            cv2.fillPoly(self.label, [corners], label, shift=_SHIFT)
        if rgb is not None:
            cv2.fillPoly(self.albedo, [corners], rgb[::-1], shift=_SHIFT)
        if height_m is not None:
            cv2.fillPoly(self.height_m, [corners], height_m, shift=_SHIFT)

    def stroke(
        self, line: Points, width_m: float, *, label: int | None = None, rgb: Rgb | None = None
    ) -> None:
        """Paints a line with round ends; lines thinner than a pixel are one pixel wide."""
        thickness = max(1, round(width_m / self.gsd_m))
        corners = self._fixed(line)
        if label is not None:
            cv2.polylines(self.label, [corners], False, label, thickness, shift=_SHIFT)
        if rgb is not None:
            cv2.polylines(self.albedo, [corners], False, rgb[::-1], thickness, shift=_SHIFT)

    def mask_of(self, outline: Points) -> tuple[NDArray[np.bool_], tuple[slice, slice]]:
        """Rasterises a polygon: ((h, w) bool, the window of the layers it lies in)."""
        corners = self._fixed(outline)
        low = np.clip(corners.min(axis=0) >> _SHIFT, 0, self.size_px - 1)
        high = np.clip((corners.max(axis=0) >> _SHIFT) + 2, 1, self.size_px)
        window = (slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])))
        mask = np.zeros((int(high[1] - low[1]), int(high[0] - low[0])), np.uint8)
        cv2.fillPoly(mask, [corners - (low << _SHIFT).astype(np.int32)], 1, shift=_SHIFT)
        return mask.astype(bool), window

    def _fixed(self, points: Points) -> NDArray[np.int32]:
        """Metres to pixel centres at whole numbers, in fixed-point form."""
        return np.rint((points / self.gsd_m - 0.5) * (1 << _SHIFT)).astype(np.int32)
