"""Draws the plan of a scene: main roads, blocks between them, and what each block is used for."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from .districts import FILLERS
from .plan import Plan, Points, Rect, Warp, circle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .style import SceneStyle

# Relative frequency of uses of built-up and of open blocks.
_URBAN = {
    "desert": {
        "villas": 6, "terraces": 2, "towers": 2.5, "apartments": 2, "industry": 2, "rings": 1.2,
    },
    "temperate": {
        "villas": 5, "terraces": 3, "towers": 0.7, "apartments": 2.5, "industry": 2, "rings": 0.6,
    },
}  # fmt: skip
_OPEN = {
    "desert": {"empty": 5, "golf": 2.4, "park": 1.4, "fields": 0.4, "scrub": 1.2},
    "temperate": {"fields": 6, "forest": 2.5, "park": 1.2, "empty": 0.6, "golf": 0.5},
}


def draw_plan(rng: np.random.Generator, style: SceneStyle, extent_m: float) -> Plan:
    """Lays out a square scene.

    Args:
        rng: Source of randomness.
        style: What to draw.
        extent_m: Side of the scene in metres.
    """
    warp = _draw_warp(rng, style, extent_m)
    plan = Plan(warp)
    country = style.urban_density < 0.35
    for block, depth in _main_roads(plan, _whole(warp, extent_m), rng, country=country):
        if not _is_visible(warp, block, extent_m):
            continue
        kind = _draw_use(rng, style)
        FILLERS[kind](plan, block.inset(9.0 if depth > 2 else 14.0), rng, style)
    return plan


def _draw_warp(rng: np.random.Generator, style: SceneStyle, extent_m: float) -> Warp:
    bend = {"grid": 0.0, "organic": 1.0, "radial": 0.35}[style.road_pattern]
    waves = []
    for length_m, height_m in ((900.0, 46.0), (430.0, 10.0)):
        for _ in range(2):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            number = 2 * np.pi / (length_m * rng.uniform(0.8, 1.25))
            shift = rng.normal(0, height_m * bend, 2)
            waves.append((number * np.cos(angle), number * np.sin(angle), phase, *shift))
    centre = (extent_m / 2, extent_m / 2)
    ring_m = extent_m * 0.3 if style.road_pattern == "radial" else None
    if ring_m is not None:
        spot = rng.uniform(0.2, 0.8, 2) * extent_m
        centre = (float(spot[0]), float(spot[1]))
    return Warp(centre, float(rng.uniform(0, 2 * np.pi)), np.array(waves), ring_m)


def _whole(warp: Warp, extent_m: float) -> Rect:
    """The part of the plan that may show in the scene."""
    x, y = warp.centre
    if warp.ring_m is None:
        reach = extent_m * 0.75 + 60
        return Rect(x - reach, y - reach, x + reach, y + reach)
    half_turn = np.pi * warp.ring_m
    return Rect(x - half_turn, y - warp.ring_m * 0.85, x + half_turn, y + extent_m * 0.95)


def _main_roads(
    plan: Plan, whole: Rect, rng: np.random.Generator, *, country: bool
) -> Iterator[tuple[Rect, int]]:
    """Cuts the plan into blocks, with a road along each cut; yields blocks with their depth."""
    highway_x = whole.left + rng.uniform(0.38, 0.62) * whole.width
    cross_y = whole.top + rng.uniform(0.38, 0.62) * whole.height
    has_highway = rng.random() < 0.65
    _road(plan, (highway_x, whole.top), (highway_x, whole.bottom), 0 if has_highway else 1)
    _road(plan, (whole.left, cross_y), (whole.right, cross_y), 1)
    xs, ys = (whole.left, highway_x, whole.right), (whole.top, cross_y, whole.bottom)
    target_m = rng.uniform(230, 330) * (1.25 if country else 1.0)
    for left, right in itertools.pairwise(xs):
        for top, bottom in itertools.pairwise(ys):
            yield from _cut(plan, Rect(left, top, right, bottom), rng, 2, target_m)
    if plan.warp.ring_m is not None:
        _centre(plan, whole)
    if has_highway and rng.random() < 0.75:
        _interchange(plan, (highway_x, cross_y), rng)
    else:
        plan.island((highway_x, cross_y), 24.0)


def _centre(plan: Plan, whole: Rect) -> None:
    """A green circle with a ring road, where the streets of a radial plan would meet."""
    bottom = whole.top + 4
    disc = Rect(whole.left, bottom - 0.15 * (whole.bottom - whole.top), whole.right, bottom)
    plan.patch(disc.corners(), "park")
    plan.road(np.array([(whole.left, whole.top), (whole.right, whole.top)]), "arterial", 17.0)


def _cut(
    plan: Plan, rect: Rect, rng: np.random.Generator, depth: int, target_m: float
) -> Iterator[tuple[Rect, int]]:
    if max(rect.width, rect.height) < target_m or depth > 8:
        yield rect, depth
        return
    across = rect.width > rect.height
    first, second = rect.split(rng.uniform(0.36, 0.64), across=across)
    start = (second.left, second.top)
    end = (second.left, second.bottom) if across else (second.right, second.top)
    _road(plan, start, end, depth)
    if depth <= 3 and rng.random() < 0.3:
        plan.island(start, rng.uniform(12, 20))
    yield from _cut(plan, first, rng, depth + 1, target_m)
    yield from _cut(plan, second, rng, depth + 1, target_m)


def _road(plan: Plan, start: tuple[float, float], end: tuple[float, float], depth: int) -> None:
    ends = np.array([start, end])
    if depth == 0:
        plan.road(ends, "highway", 40.0)
    elif depth <= 2:
        plan.road(ends, "arterial", 19.0)
    else:
        plan.road(ends, "street", max(7.0, 11.0 - 0.8 * depth))


def _interchange(plan: Plan, centre: tuple[float, float], rng: np.random.Generator) -> None:
    """A cloverleaf: four loops inside, four ramps outside."""
    x, y = centre
    loop = rng.uniform(34, 46)
    reach = 3.1 * loop + 60
    corners = []
    for sx, sy in ((1, 1), (-1, 1), (-1, -1), (1, -1)):
        ring = circle((x + sx * (loop + 17), y + sy * (loop + 7)), loop)
        plan.road(np.vstack([ring, ring[:1]]), "lane", 7.0)
        start, end = (x + sx * 17, y + sy * reach), (x + sx * reach, y + sy * 7)
        bend = (x + sx * 0.44 * reach, y + sy * 0.44 * reach)
        ramp = _curve(start, bend, end)
        plan.road(ramp, "lane", 7.0)
        corners.append(ramp[::-1] if sx * sy > 0 else ramp)
    around = np.vstack(corners)
    plan.patch(around + 6 * np.sign(around - centre), "verge")


def _curve(
    start: tuple[float, float], bend: tuple[float, float], end: tuple[float, float]
) -> Points:
    """A quadratic Bezier curve of 25 points."""
    share = np.linspace(0, 1, 25)[:, None]
    ends = np.array([start, bend, end])
    curve: Points = (
        (1 - share) ** 2 * ends[0] + 2 * share * (1 - share) * ends[1] + share**2 * ends[2]
    )
    return curve


def _is_visible(warp: Warp, block: Rect, extent_m: float) -> bool:
    """Says whether the block's box in the scene meets the scene."""
    share = np.linspace(0, 1, 5)
    grid = np.stack(np.meshgrid(share, share), axis=-1).reshape(-1, 2)
    size = (block.width, block.height)
    points = warp(grid * size + (block.left, block.top))
    low, high = points.min(axis=0), points.max(axis=0)
    return bool((high > 0).all() and (low < extent_m).all())


def _draw_use(rng: np.random.Generator, style: SceneStyle) -> str:
    group = _URBAN if rng.random() < style.urban_density else _OPEN
    weights = group[style.climate]
    shares = np.array(list(weights.values()), np.float64)
    return list(weights)[int(rng.choice(len(shares), p=shares / shares.sum()))]
