"""Lights a scene: cast shadows, sky light, air and the stretch of the final image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._cv import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .noise import Field
    from .style import SceneStyle


_SKY = 0.2  # share of the light on open ground that comes from the sky


def sun_direction(style: SceneStyle) -> tuple[float, float]:
    """Unit vector in the scene (x right, y down) that points to the sun."""
    azimuth = np.deg2rad(style.sun_azimuth_deg)
    return float(np.sin(azimuth)), float(-np.cos(azimuth))


def cast_shadows(height_m: Field, style: SceneStyle, gsd_m: float) -> Field:
    """Height of the shadow's upper edge above each pixel's ground.

    A ray towards the sun rises by tan(elevation) per metre, so the edge is the maximum over steps
    k of height(p + k * sun) - k * rise. The maximum over 2k steps is that over k steps and the
    same moved by k, which needs only log2(steps) passes.

    Args:
        height_m: (H, W) float32 heights.
        style: Direction of the sun.
        gsd_m: Side of a pixel.

    Returns:
        (H, W) float32 metres; a pixel is in shadow where this exceeds its height.
    """
    to_sun = sun_direction(style)
    rise_m = float(np.tan(np.deg2rad(style.sun_elevation_deg))) * gsd_m
    highest = float(height_m.max())
    edge: Field = height_m.copy()
    steps = 1
    while steps * rise_m < highest:
        shift = (round(steps * to_sun[0]), round(steps * to_sun[1]))
        np.maximum(edge, _moved(edge, shift) - np.float32(steps * rise_m), out=edge)
        steps *= 2
    return edge


def light_scene(
    albedo: NDArray[np.uint8],
    height_m: Field,
    shade: Field,
    style: SceneStyle,
    gsd_m: float,
) -> NDArray[np.uint8]:
    """Turns reflectance into an image.

    Args:
        albedo: (H, W, 3) uint8, BGR.
        height_m: (H, W) float32 heights of buildings, trees and cars.
        shade: (H, W) float32 factor on the colour (texture, slopes, crowns).
        style: Sun, air and stretch.
        gsd_m: Side of a pixel.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    cover = np.clip((cast_shadows(height_m, style, gsd_m) - height_m) * np.float32(1.4), 0, 1)
    cover = cv2.GaussianBlur(cover, (3, 3), 0)
    small = cv2.resize(height_m, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    around = cv2.GaussianBlur(small, (0, 0), 4.0 / gsd_m / 4 + 0.6)
    around = cv2.resize(around, height_m.shape[::-1], interpolation=cv2.INTER_LINEAR)
    sky = 1 - np.clip((around - height_m) * np.float32(0.035), 0, 0.45)
    sun = (1 - cover) * np.float32(1 - _SKY)
    image = np.empty_like(albedo)
    for channel, tint in enumerate((1.22, 1.06, 0.92)):
        light = sun + sky * np.float32(_SKY * tint)
        image[:, :, channel] = np.clip(albedo[:, :, channel] * shade * light, 0, 255)
    return image


def grade(image: NDArray[np.uint8], style: SceneStyle) -> NDArray[np.uint8]:
    """Applies saturation, contrast and haze: (H, W, 3) uint8 BGR to the same."""
    grey = np.array((0.114, 0.587, 0.299)) * (1 - style.saturation)
    matrix = np.eye(3) * style.saturation + grey[None, :]
    gain = style.contrast * (1 - style.haze)
    lift = 112 * (1 - style.contrast) * (1 - style.haze) + style.haze * 178
    offset = np.full((3, 1), lift) + np.array([[6.0], [2.0], [-4.0]]) * style.haze
    mixed: NDArray[np.uint8] = cv2.transform(image, np.hstack([matrix * gain, offset]))
    return mixed


def _moved(field: Field, shift_xy: tuple[int, int]) -> Field:
    """Reads each pixel ``shift_xy`` further on; zero outside."""
    dx, dy = shift_xy
    height, width = field.shape
    moved = np.zeros_like(field)
    if abs(dx) >= width or abs(dy) >= height:
        return moved
    to = (slice(max(0, -dy), min(height, height - dy)), slice(max(0, -dx), min(width, width - dx)))
    of = (slice(max(0, dy), min(height, height + dy)), slice(max(0, dx), min(width, width + dx)))
    moved[to] = field[of]
    return moved
