"""A rendered scene: an orthophoto with its exact label map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .canvas import Canvas
from .classes import VEGETATION
from .ground import GroundPainter, draw_tones
from .layout import draw_plan
from .light import grade, light_scene, sun_direction
from .noise import Field, grain
from .structures import paint_buildings, paint_roads, paint_trees
from .style import SceneStyle, random_style

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..frame import Image


@dataclass(frozen=True, slots=True)
class World:
    """A square piece of virtual ground.

    Attributes:
        image: (N, N, 3) uint8, BGR, without the effects of a camera.
        label: (N, N) uint8 class ids of :mod:`cclseg.virtual.classes`.
        height_m: (N, N) float16 height above ground of buildings and trees.
        gsd_m: Side of a pixel in metres.
        style: What the scene was asked to look like.
        seed: What decided about everything else.
    """

    image: Image
    label: NDArray[np.uint8]
    height_m: NDArray[np.float16]
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
    rng = np.random.default_rng((seed, 0x5CE4E))
    style = style or random_style(rng)
    canvas = Canvas(size_px, gsd_m)
    plan = draw_plan(rng, style, size_px * gsd_m)
    tones = draw_tones(rng, style)
    GroundPainter(canvas, tones, style, rng).paint(plan)
    paint_roads(canvas, plan, tones, rng)
    to_sun = sun_direction(style)
    paint_buildings(canvas, plan, float(np.arctan2(to_sun[1], to_sun[0])), rng)
    leaves = paint_trees(canvas, plan, tones)
    shade = leaves * _texture(canvas, rng)
    lit = light_scene(canvas.albedo, canvas.height_m, shade, style, gsd_m)
    return World(
        grade(lit, style), canvas.label, canvas.height_m.astype(np.float16), gsd_m, style, seed
    )


def _texture(canvas: Canvas, rng: np.random.Generator) -> Field:
    """Fine brightness variation of surfaces, strongest on plants, weakest on water."""
    strength = np.array([0.025, 0.035, 0.025, 0.075, 0.012], np.float32)
    strength[VEGETATION] *= min(1.5, 0.6 / canvas.gsd_m + 0.5)
    return 1 + strength[canvas.label] * grain(rng, canvas.label.shape)
