"""What a camera adds to the light: blur, colour cast, vignetting, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ._cv import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..frame import Image
    from .noise import Field


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """A camera's imperfections.

    Attributes:
        gain: Brightness factor per channel (blue, green, red).
        gamma: Exponent of the tone curve; below 1 brightens.
        blur_px: Standard deviation of the point spread, 0 for none.
        vignette: Share of light that is lost in the corners.
        noise: Standard deviation of the noise in grey levels.
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    blur_px: float = 0.55
    vignette: float = 0.12
    noise: float = 2.0

    def expose(self, image: Image, rng: np.random.Generator) -> Image:
        """Takes a picture of (H, W, 3) uint8 light and returns one of the same form."""
        if self.blur_px > 0:
            image = cv2.GaussianBlur(image, (0, 0), self.blur_px)
        image = cv2.LUT(image, self._curves())
        if self.vignette > 0:
            falloff = _falloff(image.shape[0], image.shape[1], self.vignette)
            image = cv2.multiply(image, cv2.merge([falloff] * 3), dtype=cv2.CV_8U)
        if self.noise > 0:
            image = _with_noise(image, self.noise, rng)
        return image

    def _curves(self) -> NDArray[np.uint8]:
        levels = np.linspace(0, 1, 256)[:, None] ** self.gamma
        curves = np.clip(np.rint(255 * levels * np.array(self.gain)), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(curves[:, None, :])


IDEAL_SENSOR = Sensor(blur_px=0.0, vignette=0.0, noise=0.0)
"""Returns the light as it is."""


def random_sensor(rng: np.random.Generator) -> Sensor:
    """Draws a camera."""
    brightness = rng.uniform(0.85, 1.15)
    cast = rng.normal(0, 0.03, 3)
    blue, green, red = (float(v) for v in brightness * (1 + cast))
    return Sensor(
        gain=(blue, green, red),
        gamma=float(rng.uniform(0.8, 1.25)),
        blur_px=float(rng.uniform(0.3, 0.9)),
        vignette=float(rng.uniform(0, 0.2)),
        noise=float(rng.uniform(0.5, 5.0)),
    )


def _falloff(height: int, width: int, strength: float) -> Field:
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    falloff: Field = 1 - np.float32(strength / 2) * (x * x + y * y)
    return falloff


def _with_noise(image: Image, deviation: float, rng: np.random.Generator) -> Image:
    """Adds one tile of noise at a random place, a quarter of the cost of fresh noise."""
    height, width = image.shape[:2]
    tile = (rng.standard_normal((128, 128 + 3 * 7), dtype=np.float32) * deviation + 128.5).astype(
        np.uint8
    )
    shift = rng.integers(0, 128, 2)
    planes = [
        np.roll(tile[:, 7 * c : 7 * c + 128], tuple(shift * (c + 1)), (0, 1)) for c in range(3)
    ]
    repeats = (-(-height // 128), -(-width // 128), 1)
    noise = np.tile(np.stack(planes, axis=2), repeats)[:height, :width]
    noisy: Image = cv2.addWeighted(image, 1.0, np.ascontiguousarray(noise), 1.0, -128.0)
    return noisy
