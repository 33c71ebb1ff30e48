"""Paints roads: kerbs, carriageways, roundabouts, markings and the cars on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .canvas import VERGE
from .classes import LAND, ROAD, VEGETATION, WATER
from .plan import circle, rectangle
from .tones import mixed, scaled

if TYPE_CHECKING:
    from .canvas import Canvas
    from .plan import Plan, Points, Rgb, Road
    from .tones import Tones

_MAIN = ("highway", "arterial")
_LANES_M = {
    "highway": (8.0, 11.6, 15.4), "arterial": (3.4, 6.8), "street": (1.7,), "lane": (0.0,),
}  # fmt: skip
_CARS_PER_M = {"highway": 0.035, "arterial": 0.02, "street": 0.011, "lane": 0.006}
_CAR_COLOURS: tuple[Rgb, ...] = (
    (235, 235, 235), (225, 225, 228), (40, 40, 44), (130, 132, 136), (170, 172, 176),
    (140, 40, 36), (48, 66, 110), (200, 190, 170),
)  # fmt: skip


def paint_roads(canvas: Canvas, plan: Plan, tones: Tones, rng: np.random.Generator) -> None:
    """Paints all roads of a plan; only main roads cross water, only ramps cross an interchange."""
    roads = sorted(plan.roads, key=lambda road: road.width_m)
    roads = [road for road in roads if not canvas.is_outside(road.points)]
    minor, major = (
        [road for road in roads if (road.kind in ("street", "track")) is wanted]
        for wanted in (True, False)
    )
    closed = (canvas.label == WATER) | (canvas.blocked == VERGE)
    label, albedo = canvas.label[closed], canvas.albedo[closed]
    _paint_strips(canvas, minor, tones)
    canvas.label[closed], canvas.albedo[closed] = label, albedo
    _paint_strips(canvas, major, tones)
    for x, y, radius in plan.islands:
        _roundabout(canvas, (x, y), radius, tones)
    if canvas.gsd_m <= 0.9:
        for road in roads:
            _markings(canvas, road, tones)
    if canvas.gsd_m <= 1.6:
        for road in roads:
            _traffic(canvas, road, rng)
        for x, y, heading in np.vstack([np.zeros((0, 3)), *plan.parked]):
            _car(canvas, (float(x), float(y)), float(heading), 4.5, rng)


def _paint_strips(canvas: Canvas, roads: list[Road], tones: Tones) -> None:
    for road in roads:
        if road.kind != "track":
            canvas.stroke(road.points, road.width_m + 2.6, label=LAND, rgb=tones.kerb)
    for road in roads:
        _carriageway(canvas, road, tones)


def _carriageway(canvas: Canvas, road: Road, tones: Tones) -> None:
    if road.kind == "track":
        canvas.stroke(road.points, road.width_m, label=LAND, rgb=scaled(tones.sand, 0.86))
        return
    surface = tones.asphalt if road.kind in _MAIN else tones.street
    canvas.stroke(road.points, road.width_m, label=ROAD, rgb=surface)
    if road.kind == "highway":
        canvas.stroke(road.points, 4.6, label=LAND, rgb=tones.kerb)
        canvas.stroke(road.points, 0.8, rgb=scaled(tones.kerb, 0.7))
    elif road.kind == "arterial":
        canvas.stroke(road.points, 2.6, label=VEGETATION, rgb=tones.lawn)


def _roundabout(canvas: Canvas, centre: tuple[float, float], radius: float, tones: Tones) -> None:
    outer = circle(centre, radius + 9, 48)
    if canvas.is_outside(outer) or (canvas.label[canvas.mask_of(outer)[1]] == WATER).any():
        return
    canvas.fill(outer, label=ROAD, rgb=tones.asphalt)
    canvas.fill(circle(centre, radius, 48), label=LAND, rgb=tones.kerb)
    canvas.fill(circle(centre, radius - 1.6, 48), label=VEGETATION, rgb=tones.lawn)
    if radius > 16:
        canvas.fill(circle(centre, radius * 0.45, 48), label=LAND, rgb=tones.paving)


def _markings(canvas: Canvas, road: Road, tones: Tones) -> None:
    """Dashes between lanes and edge lines, fainter where a pixel is wider than the paint."""
    if road.kind not in _MAIN:
        return
    white = mixed(tones.asphalt, (206, 206, 202), min(0.75, 0.2 / canvas.gsd_m + 0.1))
    dashes, edges = {
        "highway": ((6.3, 10.0, 13.7), (3.0, 18.6)),
        "arterial": ((5.1,), (1.9, 8.6)),
    }[road.kind]
    for offset in (*dashes, *edges):
        for side in (-1, 1):
            line = offset_line(road.points, side * offset)
            step = 2 if offset in dashes else 1
            for start, end in zip(line[:-1:step], line[1::step], strict=False):
                stop = start + 0.5 * (end - start) if step == 2 else end
                if _is_road(canvas, start) and _is_road(canvas, stop):
                    canvas.stroke(np.stack([start, stop]), 0.15, rgb=white)


def _traffic(canvas: Canvas, road: Road, rng: np.random.Generator) -> None:
    if road.kind == "track":
        return
    steps = np.diff(road.points, axis=0)
    length_m = float(np.hypot(steps[:, 0], steps[:, 1]).sum())
    for _ in range(rng.poisson(length_m * _CARS_PER_M[road.kind])):
        index = int(rng.integers(len(steps)))
        along = steps[index] / max(1e-6, float(np.hypot(*steps[index])))
        lanes = _LANES_M[road.kind]
        offset = float(rng.choice((-1, 1))) * lanes[int(rng.integers(len(lanes)))]
        spot = road.points[index] + rng.random() * steps[index]
        spot = spot + offset * np.array([-along[1], along[0]])
        heading = float(np.arctan2(along[1], along[0]))
        length = 4.6 if road.kind not in _MAIN or rng.random() < 0.88 else 11.0
        _car(canvas, (float(spot[0]), float(spot[1])), heading, length, rng)


def _car(
    canvas: Canvas,
    spot: tuple[float, float],
    heading: float,
    length: float,
    rng: np.random.Generator,
) -> None:
    rgb = _CAR_COLOURS[int(rng.integers(len(_CAR_COLOURS)))]
    if not _is_road(canvas, np.array(spot)):
        return
    canvas.fill(rectangle(spot, heading, (0, 0, length, 1.9)), rgb=rgb, height_m=1.4)
    if canvas.gsd_m < 0.6:
        glass = rectangle(spot, heading, (length * 0.14, 0, 0.9, 1.5))
        canvas.fill(glass, rgb=(44, 48, 54))


def _is_road(canvas: Canvas, spot: Points) -> bool:
    x, y = (int(v) for v in spot / canvas.gsd_m)
    inside = 0 <= x < canvas.size_px and 0 <= y < canvas.size_px
    return inside and canvas.label[y, x] == ROAD


def offset_line(line: Points, distance_m: float) -> Points:
    """Moves a line to its right (looking along it, y down) by a distance, point by point."""
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)[:, None]
    return np.asarray(line + distance_m * np.stack([-along[:, 1], along[:, 0]], axis=1))
