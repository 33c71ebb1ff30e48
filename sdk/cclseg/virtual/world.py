"""A rendered scene: an orthophoto with its exact label map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ._cv import cv2
from .buildings import paint_buildings
from .canvas import Canvas
from .classes import LAND, VEGETATION
from .ground import GroundPainter
from .layout import draw_plan
from .light import grade, light_scene, sun_direction
from .noise import Field, grain
from .roads import paint_roads
from .style import SceneStyle, random_style
from .terrain import draw_terrain
from .tones import draw_tones
from .trees import paint_trees
from .water import colour_water, flood

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..frame import Image


# Keeps scenes apart from other uses of the same seed.
_DOMAIN = 0x5CE4E


@dataclass(frozen=True, slots=True)
class World:
    """A square piece of virtual ground.

    Attributes:
        image: (N, N, 3) uint8, BGR, without the effects of a camera.
        label: (N, N) uint8 class ids of :mod:`cclseg.virtual.classes`.
        gsd_m: Side of a pixel in metres.
        style: What the scene was asked to look like.
        seed: What decided about everything else.
    """

    image: Image
    label: NDArray[np.uint8]
    gsd_m: float
    style: SceneStyle
    seed: int

    @property
    def size_px(self) -> int:
        """Side in pixels."""
        return int(self.label.shape[0])

    @property
    def extent_m(self) -> float:
        """Side in metres."""
        return self.size_px * self.gsd_m


def build_world(
    seed: int, *, style: SceneStyle | None = None, size_px: int = 2048, gsd_m: float = 0.5
) -> World:
    """Renders a scene. The same arguments give the same scene, byte for byte.

    Args:
        seed: Decides about everything that the style leaves open.
        style: What the scene looks like; None draws one.
        size_px: Side of the scene, 256 to 8192.
        gsd_m: Side of a pixel, 0.1 to 4.

    Raises:
        InputError: A size is out of range.

    Example:
        >>> world = build_world(7, size_px=256, gsd_m=1.0)
        >>> world.image.shape, world.label.shape, world.extent_m
        ((256, 256, 3), (256, 256), 256.0)
    """
    if not 256 <= size_px <= 8192:
        raise InputError(f"size_px is {size_px}; expected 256 to 8192")
    if not 0.1 <= gsd_m <= 4:
        raise InputError(f"gsd_m is {gsd_m}; expected 0.1 to 4 metres")
    rng = np.random.default_rng((seed, _DOMAIN))
    style = style or random_style(rng)
    canvas = Canvas(size_px, gsd_m)
    plan = draw_plan(rng, style, size_px * gsd_m)
    tones, terrain = draw_tones(rng, style), draw_terrain(rng, size_px, gsd_m)
    ground = GroundPainter(canvas, terrain, tones, style, rng)
    ground.paint(plan)
    flood(canvas, terrain, tones, style, rng)
    colour_water(canvas, terrain, tones, rng)
    ground.paint_pools(plan)
    paint_roads(canvas, plan, tones, rng)
    to_sun = sun_direction(style)
    paint_buildings(canvas, plan, float(np.arctan2(to_sun[1], to_sun[0])), rng)
    shade = paint_trees(canvas, plan, tones, terrain.fine) * _texture(canvas, rng)
    open_ground = (canvas.label == LAND) | (canvas.label == VEGETATION)
    shade[open_ground] *= terrain.slope_shade(to_sun, gsd_m)[open_ground]
    lit = light_scene(canvas.albedo, canvas.height_m, shade, style, gsd_m)
    return World(grade(lit, style), canvas.label, gsd_m, style, seed)


def _texture(canvas: Canvas, rng: np.random.Generator) -> Field:
    """Fine brightness variation of surfaces, strongest on plants, weakest on water."""
    strength = np.array([0.02, 0.026, 0.022, 0.07, 0.012], np.float32)
    strength[VEGETATION] *= min(1.4, 0.5 / canvas.gsd_m + 0.5)
    white = grain(rng, canvas.label.shape)
    soft: Field = cv2.GaussianBlur(white, (0, 0), 2.2)
    texture: Field = 1 + strength[canvas.label] * (white + np.float32(3) * soft)
    return texture
