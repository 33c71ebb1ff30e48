"""Paints what stands on the ground: roads, buildings, trees, cars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._cv import cv2
from .classes import BUILDING, LAND, ROAD, VEGETATION, WATER
from .plan import Building, Plan, Points, Rgb, Road, circle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .canvas import Canvas
    from .ground import Tones
    from .noise import Field

_CAR_COLOURS: tuple[Rgb, ...] = (
    (235, 235, 235), (225, 225, 228), (40, 40, 44), (130, 132, 136), (170, 172, 176),
    (140, 40, 36), (48, 66, 110), (200, 190, 170),
)  # fmt: skip


def paint_roads(canvas: Canvas, plan: Plan, tones: Tones, rng: np.random.Generator) -> None:
    """Paints kerbs, then carriageways, then markings; small roads end at water."""
    wet = canvas.label == WATER
    land = canvas.albedo[wet]
    ranked = sorted(
        (road for road in plan.roads if not canvas.is_outside(road.points)),
        key=lambda road: road.width_m,
    )
    for road in ranked:
        _kerb(canvas, road, tones)
    for road in ranked:
        _carriageway(canvas, road, tones)
        if road.kind in {"street", "lane", "track"}:
            continue
    canvas.label[wet] = WATER
    canvas.albedo[wet] = land
    for road in ranked:
        if road.kind in ("highway", "arterial"):
            _kerb(canvas, road, tones)
            _carriageway(canvas, road, tones)
    for x, y, radius in plan.islands:
        _roundabout(canvas, (x, y), radius, tones)
    for road in ranked:
        _markings(canvas, road)
    for road in ranked:
        _traffic(canvas, road, rng)


def paint_buildings(
    canvas: Canvas, plan: Plan, sun_azimuth_rad: float, rng: np.random.Generator
) -> None:
    """Paints buildings that overlap neither road nor water nor one another."""
    for building in plan.buildings:
        outlines = [_outline(building, part) for part in building.parts]
        if any(canvas.is_outside(outline) for outline in outlines):
            continue
        tall = building.height_m > 28
        if all(_is_free(canvas, outline, tall=tall) for outline in outlines):
            for outline in outlines:
                canvas.fill(outline, label=BUILDING, height_m=building.height_m)
            for part in building.parts:
                _roof(canvas, building, part, sun_azimuth_rad, rng)


def paint_trees(canvas: Canvas, plan: Plan, tones: Tones) -> Field:
    """Paints crowns as domes where a tree can stand.

    Returns:
        (N, N) float32 factor by which leaves are lit, 1 without trees.
    """
    hw = canvas.label.shape
    if not plan.trees:
        return np.ones(hw, np.float32)
    trees = np.vstack(plan.trees)
    px = np.floor(trees[:, :2] / canvas.gsd_m).astype(np.int64)
    inside = ((px >= 0) & (px < canvas.size_px)).all(axis=1)
    trees, px = trees[inside], px[inside]
    ground = canvas.label[px[:, 1], px[:, 0]]
    stands = (ground == LAND) | (ground == VEGETATION)
    return _crowns(canvas, trees[stands], px[stands], tones)


def _crowns(canvas: Canvas, trees: Points, px: NDArray[np.int64], tones: Tones) -> Field:
    hw = canvas.label.shape
    lit = np.ones(hw, np.float32)
    if not len(trees):
        return lit
    seeds = np.ones(hw, np.uint8)
    seeds[px[:, 1], px[:, 0]] = 0
    distance, nearest = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((int(nearest.max()) + 1, 3), np.float32)
    table[nearest[px[:, 1], px[:, 0]]] = trees[:, 2:5]
    near = distance * canvas.gsd_m < table[:, 0].max()
    where = np.nonzero(near)
    radius, tall, tint = table[nearest[where]].T
    share = distance[where] * np.float32(canvas.gsd_m) / radius
    crown = (share < 1) & (canvas.label[where] != BUILDING) & (canvas.label[where] != WATER)
    where = (where[0][crown], where[1][crown])
    share, tall, tint = share[crown], tall[crown], tint[crown]
    low, high = (np.array(c[::-1], np.float32) for c in tones.crowns)
    canvas.albedo[where] = np.clip(low + (high - low) * tint[:, None], 0, 255)
    canvas.label[where] = VEGETATION
    dome = np.sqrt(np.clip(1 - share**2, 0, 1))
    canvas.height_m[where] = tall * (np.float32(0.35) + np.float32(0.65) * dome)
    lit[where] = np.float32(0.72) + np.float32(0.4) * dome
    return lit


def _kerb(canvas: Canvas, road: Road, tones: Tones) -> None:
    if road.kind in ("track",):
        return
    edge: Rgb = tuple(min(235, c + 26) for c in tones.paving)  # type: ignore[assignment]
    canvas.stroke(road.points, road.width_m + 2.4, rgb=edge, label=LAND)


def _carriageway(canvas: Canvas, road: Road, tones: Tones) -> None:
    if road.kind == "track":
        rgb: Rgb = tuple(round(c * 0.82) for c in tones.sand)  # type: ignore[assignment]
        canvas.stroke(road.points, road.width_m, label=LAND, rgb=rgb)
        return
    wide = road.kind in ("highway", "arterial")
    canvas.stroke(
        road.points, road.width_m, label=ROAD, rgb=tones.asphalt if wide else tones.street
    )
    if road.kind == "highway":
        canvas.stroke(road.points, 5.0, label=LAND, rgb=tones.sand)
    elif road.kind == "arterial":
        canvas.stroke(road.points, 3.0, label=VEGETATION, rgb=tones.lawn)


def _roundabout(canvas: Canvas, centre: tuple[float, float], radius: float, tones: Tones) -> None:
    outer = circle(centre, radius + 9, 48)
    if canvas.is_outside(outer) or (canvas.label[canvas.mask_of(outer)[1]] == WATER).any():
        return
    canvas.fill(outer, label=ROAD, rgb=tones.asphalt)
    edge: Rgb = tuple(min(235, c + 26) for c in tones.paving)  # type: ignore[assignment]
    canvas.fill(circle(centre, radius, 48), label=LAND, rgb=edge)
    canvas.fill(circle(centre, radius - 2, 48), label=VEGETATION, rgb=tones.lawn)


def _markings(canvas: Canvas, road: Road) -> None:
    """White lines, where a pixel is small enough to show them."""
    if canvas.gsd_m > 0.9 or road.kind not in ("highway", "arterial"):
        return
    lanes = {"highway": (6.3, 10.0, 13.7, 17.6), "arterial": (5.2, 8.4)}[road.kind]
    for offset in lanes:
        for side in (-1, 1):
            line = _offset(road.points, side * offset)
            for start, end in zip(line[:-1:2], line[1::2], strict=False):
                middle = start + 0.5 * (end - start)
                canvas.stroke(np.stack([start, middle]), 0.2, rgb=(196, 196, 192))


def _traffic(canvas: Canvas, road: Road, rng: np.random.Generator) -> None:
    if road.kind in ("track", "lane") or canvas.gsd_m > 2:
        return
    lanes = {"highway": (8.2, 11.8, 15.6), "arterial": (4.0, 7.0), "street": (1.9,)}[road.kind]
    segments = len(road.points) - 1
    count = rng.poisson(segments * {"highway": 0.3, "arterial": 0.16, "street": 0.09}[road.kind])
    for _ in range(count):
        index = int(rng.integers(segments))
        start, end = road.points[index], road.points[index + 1]
        along = (end - start) / max(1e-6, float(np.hypot(*(end - start))))
        side = 1 if rng.random() < 0.5 else -1
        offset = side * lanes[int(rng.integers(len(lanes)))]
        spot = start + rng.random() * (end - start) + offset * np.array([-along[1], along[0]])
        heading = float(np.arctan2(along[1], along[0]))
        rgb = _CAR_COLOURS[int(rng.integers(len(_CAR_COLOURS)))]
        length = 4.6 if rng.random() < 0.85 else 11.0
        _car(canvas, spot, heading, length, rgb)


def _car(canvas: Canvas, spot: Points, heading: float, length: float, rgb: Rgb) -> None:
    outline = _rectangle((float(spot[0]), float(spot[1])), heading, (0, 0, length, 2.0))
    if canvas.is_outside(outline):
        return
    x, y = (np.clip(spot / canvas.gsd_m, 0, canvas.size_px - 1)).astype(int)
    if canvas.label[y, x] == ROAD:
        canvas.fill(outline, rgb=rgb, height_m=1.5)
        glass = _rectangle((float(spot[0]), float(spot[1])), heading, (length * 0.12, 0, 1.0, 1.7))
        canvas.fill(glass, rgb=(38, 42, 48))


def _roof(
    canvas: Canvas,
    building: Building,
    part: tuple[float, float, float, float],
    sun_azimuth_rad: float,
    rng: np.random.Generator,
) -> None:
    x, y, length, width = part
    if building.roof == "flat":
        canvas.fill(_outline(building, part), rgb=_scaled(building.rgb, 1.08))
        rim = min(0.6, length / 8)
        inner = (x, y, length - 2 * rim, width - 2 * rim)
        canvas.fill(_outline(building, inner), rgb=_scaled(building.rgb, 0.93))
        _rooftop_boxes(canvas, building, part, rng)
    elif building.roof == "hall":
        bays = max(2, round(length / 12))
        for bay in range(bays):
            left = x - length / 2 + (bay + 0.5) * length / bays
            shade = 1.0 if bay % 2 else 0.95
            canvas.fill(
                _outline(building, (left, y, length / bays, width)),
                rgb=_scaled(building.rgb, shade),
            )
        ridge = (x, y, length, max(0.8, width * 0.03))
        canvas.fill(_outline(building, ridge), rgb=_scaled(building.rgb, 0.8))
    else:
        _pitched(canvas, building, part, sun_azimuth_rad)


def _pitched(
    canvas: Canvas,
    building: Building,
    part: tuple[float, float, float, float],
    sun_azimuth_rad: float,
) -> None:
    """Four slopes (hip) or two (gable), each lit by its direction."""
    x, y, length, width = part
    turned = width > length
    long, short = max(length, width), min(length, width)
    cut = short / 2 if building.roof == "hip" else 0.0
    ridge = [(-(long / 2 - cut), 0.0), (long / 2 - cut, 0.0)]
    corners = [
        (-long / 2, -short / 2),
        (long / 2, -short / 2),
        (long / 2, short / 2),
        (-long / 2, short / 2),
    ]
    slopes = [
        ((corners[0], corners[1], ridge[1], ridge[0]), -np.pi / 2),
        ((corners[2], corners[3], ridge[0], ridge[1]), np.pi / 2),
        ((corners[1], corners[2], ridge[1]), 0.0),
        ((corners[3], corners[0], ridge[0]), np.pi),
    ]
    for outline, facing in slopes[: 4 if building.roof == "hip" else 2]:
        local = np.array(outline)
        if turned:
            local, facing = local[:, ::-1] * (1, -1), facing - np.pi / 2
        world_facing = facing + building.heading_rad
        sun = np.cos(world_facing - sun_azimuth_rad)
        placed = _placed(local + (x, y), building.centre, building.heading_rad)
        canvas.fill(placed, rgb=_scaled(building.rgb, 1 + 0.26 * float(sun)))
    rise = short * 0.22
    line = _placed(np.array(ridge)[:, ::-1] * (1, -1) + (x, y) if turned else np.array(ridge) + (x, y),
                   building.centre, building.heading_rad)  # fmt: skip
    del rise
    canvas.stroke(line, 0.3, rgb=_scaled(building.rgb, 1.22))


def _rooftop_boxes(
    canvas: Canvas,
    building: Building,
    part: tuple[float, float, float, float],
    rng: np.random.Generator,
) -> None:
    """Stair heads, tanks and machines, each with its own shadow."""
    x, y, length, width = part
    area = length * width
    for _ in range(int(rng.poisson(min(10.0, area / 90)))):
        size = rng.uniform(1.2, min(5.0, 0.3 * min(length, width) + 1.2), 2)
        dx = rng.uniform(-0.38, 0.38) * (length - size[0])
        dy = rng.uniform(-0.38, 0.38) * (width - size[1])
        outline = _outline(building, (x + dx, y + dy, size[0], size[1]))
        shade = _scaled(building.rgb, float(rng.choice([0.72, 1.1, 1.18])))
        canvas.fill(outline, rgb=shade, height_m=building.height_m + rng.uniform(1, 3))


def _is_free(canvas: Canvas, outline: Points, *, tall: bool) -> bool:
    """Says whether nothing stands in the way; towers may stand on their podium."""
    mask, window = canvas.mask_of(outline)
    under = canvas.label[window][mask]
    taken = (under == ROAD) | (under == WATER) | (canvas.blocked[window][mask] != 0)
    if not tall:
        taken |= under == BUILDING
    return not bool(taken.any())


def _outline(building: Building, part: tuple[float, float, float, float]) -> Points:
    return _rectangle(building.centre, building.heading_rad, part)


def _rectangle(
    centre: tuple[float, float], heading: float, part: tuple[float, float, float, float]
) -> Points:
    x, y, length, width = part
    dx, dy = length / 2, width / 2
    local = np.array([(x - dx, y - dy), (x + dx, y - dy), (x + dx, y + dy), (x - dx, y + dy)])
    return _placed(local, centre, heading)


def _placed(local: Points, centre: tuple[float, float], heading: float) -> Points:
    cos, sin = np.cos(heading), np.sin(heading)
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.asarray(local @ turn.T + centre)


def _offset(line: Points, distance: float) -> Points:
    """Moves a line to its right by a distance, point by point."""
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)[:, None]
    return line + distance * np.stack([-along[:, 1], along[:, 0]], axis=1)


def _scaled(rgb: Rgb, factor: float) -> Rgb:
    red, green, blue = (int(np.clip(round(v * factor), 0, 252)) for v in rgb)
    return red, green, blue
