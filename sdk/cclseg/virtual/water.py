"""Floods a scene: seas, rivers and lagoons, and the colour of all water."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._cv import cv2
from .canvas import SHORE
from .classes import LAND, WATER
from .noise import fractal_noise
from .tones import scaled

if TYPE_CHECKING:
    from .canvas import Canvas
    from .noise import Field
    from .style import SceneStyle
    from .terrain import Terrain
    from .tones import Tones


def flood(
    canvas: Canvas, terrain: Terrain, tones: Tones, style: SceneStyle, rng: np.random.Generator
) -> None:
    """Lays the style's water body over the ground, with a beach along its shore."""
    level_m = _level(canvas, terrain, style, rng)
    if level_m is None:
        return
    beach = (level_m >= 0) & (level_m < 12 + 12 * terrain.middle)
    canvas.label[beach] = LAND
    damp = np.clip(1.02 + 0.05 * terrain.fine - 0.2 * np.exp(-np.maximum(level_m, 0) / 3), 0, 1.1)
    canvas.albedo[beach] = damp[beach][:, None] * np.array(tones.sand[::-1], np.float32)
    canvas.blocked[level_m < 16] = SHORE
    canvas.label[level_m < 0] = WATER


def _level(
    canvas: Canvas, terrain: Terrain, style: SceneStyle, rng: np.random.Generator
) -> Field | None:
    """Height above the water as if all shores rose alike; None without a water body."""
    if style.water == "none":
        return None
    level: Field
    if style.water == "lagoon":
        level = np.float32(110) * (np.float32(0.58) - terrain.broad)
        level += np.float32(18) * terrain.middle
        return level
    extent = canvas.size_px * canvas.gsd_m
    axis = (np.arange(canvas.size_px, dtype=np.float32) + np.float32(0.5)) * np.float32(
        canvas.gsd_m
    )
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = axis[None, :] * cos + axis[:, None] * sin - np.float32((cos + sin) * extent / 2)
    wobble = np.float32(130) * terrain.broad + np.float32(26) * terrain.middle
    wobble += np.float32(3) * terrain.fine
    if style.water == "coast":
        level = along + np.float32(rng.uniform(0.05, 0.3) * extent) + wobble
    else:
        half_width = np.float32(rng.uniform(14, 45))
        level = np.abs(along + np.float32(0.9) * wobble) - half_width
        level += np.float32(4) * terrain.middle
    return level


def colour_water(canvas: Canvas, terrain: Terrain, tones: Tones, rng: np.random.Generator) -> None:
    """Colours all water of the label layer by its distance from the shore, with shoals."""
    wet = canvas.label == WATER
    if not wet.any():
        return
    shore_m = cv2.distanceTransform(wet.astype(np.uint8), cv2.DIST_L2, 5)
    shore_m *= np.float32(canvas.gsd_m)
    shoals = fractal_noise(rng, wet.shape, 160 / canvas.gsd_m, octaves=5)
    reach_m = np.float32(26) + np.float32(45) * np.clip(shoals + 0.1, 0, 1)
    depth = 1 - np.exp(-shore_m / reach_m)
    depth -= np.float32(0.45) * np.clip(shoals - 0.1, 0, 1) * (1 + np.float32(0.5) * terrain.middle)
    depth = np.clip(depth, 0, 1)[wet][:, None]
    shallow, deep = (np.array(c[::-1], np.float32) for c in (tones.shallow, tones.deep))
    canvas.albedo[wet] = shallow + (deep - shallow) * depth
    surf = wet & (shore_m < 2.2 * np.clip(terrain.fine + 0.2, 0, 1))
    canvas.albedo[surf] = scaled(tones.shallow, 1.35)[::-1]
