"""Paints buildings and walls."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from .classes import BUILDING, ROAD, WATER
from .plan import placed, rectangle
from .tones import scaled

if TYPE_CHECKING:
    from .canvas import Canvas
    from .plan import Building, Part, Plan, Points

_TOWER_M = 28.0  # from this height on a building may stand on another, its podium


def paint_buildings(
    canvas: Canvas, plan: Plan, sun_azimuth_rad: float, rng: np.random.Generator
) -> None:
    """Paints the buildings of a plan that nothing stands in the way of.

    Args:
        canvas: Layers to paint on.
        plan: What to paint.
        sun_azimuth_rad: Angle of the direction to the sun in the scene, from x towards y.
        rng: Source of randomness.
    """
    for planned in plan.buildings:
        building = _fitted(canvas, planned)
        if building is None:
            continue
        for part in building.parts:
            canvas.fill(_outline(building, part), label=BUILDING, height_m=building.height_m)
        for part in building.parts:
            _roof(canvas, building, part, sun_azimuth_rad, rng)


def _fitted(canvas: Canvas, building: Building) -> Building | None:
    """The building, made smaller where it would stand on a road or a neighbour; None if tiny."""
    for scale in (1.0, 0.84, 0.68):
        parts = tuple(
            (x * scale, y * scale, length * scale, width * scale)
            for x, y, length, width in building.parts
        )
        smaller = dataclasses.replace(building, parts=parts)
        outlines = [_outline(smaller, part) for part in parts]
        if any(canvas.is_outside(outline) for outline in outlines):
            return None
        if all(_is_free(canvas, o, on_podium=building.height_m > _TOWER_M) for o in outlines):
            return smaller
    return None


def _is_free(canvas: Canvas, outline: Points, *, on_podium: bool) -> bool:
    mask, window = canvas.mask_of(outline)
    under = canvas.label[window][mask]
    taken = (under == ROAD) | (under == WATER) | (canvas.blocked[window][mask] != 0)
    if not on_podium:
        taken |= under == BUILDING
    return not bool(taken.any())


def _roof(
    canvas: Canvas,
    building: Building,
    part: Part,
    sun_azimuth_rad: float,
    rng: np.random.Generator,
) -> None:
    if building.roof == "flat":
        _flat_roof(canvas, building, part, rng)
    elif building.roof == "hall":
        _hall_roof(canvas, building, part)
    else:
        _pitched_roof(canvas, building, part, sun_azimuth_rad)


def _flat_roof(canvas: Canvas, building: Building, part: Part, rng: np.random.Generator) -> None:
    """A parapet around a floor with stair heads, tanks and machines that cast shadows."""
    x, y, length, width = part
    rim = min(0.6, min(length, width) / 8)
    canvas.fill(_outline(building, part), rgb=scaled(building.rgb, 1.08))
    floor = (x, y, length - 2 * rim, width - 2 * rim)
    canvas.fill(
        _outline(building, floor), rgb=scaled(building.rgb, 0.93), height_m=building.height_m - 0.7
    )
    for _ in range(int(rng.poisson(min(10.0, length * width / 90)))):
        size = rng.uniform(1.2, min(5.0, 0.3 * min(length, width) + 1.2), 2)
        dx = rng.uniform(-0.38, 0.38) * (length - size[0])
        dy = rng.uniform(-0.38, 0.38) * (width - size[1])
        box = _outline(building, (x + dx, y + dy, float(size[0]), float(size[1])))
        shade = scaled(building.rgb, float(rng.choice([0.72, 1.1, 1.18])))
        canvas.fill(box, rgb=shade, height_m=building.height_m + rng.uniform(1, 3))


def _hall_roof(canvas: Canvas, building: Building, part: Part) -> None:
    """Bays of sheet metal and a ridge."""
    x, y, length, width = part
    bays = max(2, round(length / 12))
    for bay in range(bays):
        left = x - length / 2 + (bay + 0.5) * length / bays
        shade = 1.0 if bay % 2 else 0.955
        strip = _outline(building, (left, y, length / bays, width))
        canvas.fill(strip, rgb=scaled(building.rgb, shade))
        lights = _outline(building, (left, y, length / bays * 0.14, width * 0.8))
        canvas.fill(lights, rgb=scaled(building.rgb, 0.84))
    ridge = _outline(building, (x, y, length, max(0.8, width * 0.03)))
    canvas.fill(ridge, rgb=scaled(building.rgb, 0.8))


def _pitched_roof(canvas: Canvas, building: Building, part: Part, sun_azimuth_rad: float) -> None:
    """Four slopes (hip) or two (gable), each lit by the direction it faces."""
    x, y, length, width = part
    quarter = np.pi / 2 if width > length else 0.0
    long, short = max(length, width) / 2, min(length, width) / 2
    crest = long - short if building.roof == "hip" else long
    ridge = ((-crest, 0.0), (crest, 0.0))
    corners = ((-long, -short), (long, -short), (long, short), (-long, short))
    slopes = (
        ((corners[0], corners[1], ridge[1], ridge[0]), -np.pi / 2),
        ((corners[2], corners[3], ridge[0], ridge[1]), np.pi / 2),
        ((corners[1], corners[2], ridge[1]), 0.0),
        ((corners[3], corners[0], ridge[0]), np.pi),
    )
    (middle,) = placed(np.array([(x, y)]), building.centre, building.heading_rad)
    centre, heading = (float(middle[0]), float(middle[1])), building.heading_rad + quarter
    for outline, facing in slopes[: 4 if building.roof == "hip" else 2]:
        toward_sun = float(np.cos(facing + heading - sun_azimuth_rad))
        slope = placed(np.array(outline), centre, heading)
        canvas.fill(slope, rgb=scaled(building.rgb, 1 + 0.26 * toward_sun))
    canvas.stroke(placed(np.array(ridge), centre, heading), 0.3, rgb=scaled(building.rgb, 1.2))


def _outline(building: Building, part: Part) -> Points:
    return rectangle(building.centre, building.heading_rad, part)
