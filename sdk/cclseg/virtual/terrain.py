"""The lie of the land: noise at three scales, and the light on its slopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .noise import fractal_noise

if TYPE_CHECKING:
    from .noise import Field


@dataclass(frozen=True, slots=True)
class Terrain:
    """Noise fields of a scene, each (N, N) float32 with a standard deviation near 0.35.

    Attributes:
        broad: Features of hundreds of metres: hills, gravel flats, coasts.
        middle: Features of tens of metres: dunes, fairways, ponds.
        fine: Features of metres: shrubs, frayed edges.
    """

    broad: Field
    middle: Field
    fine: Field

    def slope_shade(self, to_sun: tuple[float, float], gsd_m: float) -> Field:
        """Brightness of slopes: 1 on level ground, more where the ground faces the sun.

        Args:
            to_sun: Unit vector in the scene that points to the sun.
            gsd_m: Side of a pixel.
        """
        height_m = np.float32(7) * self.middle + np.float32(0.35) * self.fine
        rise = np.zeros_like(height_m)
        rise[:, 1:] -= np.float32(to_sun[0] / gsd_m) * (height_m[:, 1:] - height_m[:, :-1])
        rise[1:] -= np.float32(to_sun[1] / gsd_m) * (height_m[1:] - height_m[:-1])
        shade: Field = np.clip(1 + np.float32(0.3) * rise, 0.75, 1.2)
        return shade


def draw_terrain(rng: np.random.Generator, size_px: int, gsd_m: float) -> Terrain:
    """Draws the noise of a scene."""
    hw = (size_px, size_px)
    return Terrain(
        fractal_noise(rng, hw, 420 / gsd_m, octaves=4),
        fractal_noise(rng, hw, 90 / gsd_m, octaves=5),
        fractal_noise(rng, hw, 16 / gsd_m, octaves=4),
    )
