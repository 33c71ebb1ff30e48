"""Pieces that districts are put together from: rows, cells, streets, planting, car parks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .plan import Rect, circle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .plan import Plan, Points, Rgb

PALE_ROOFS: tuple[Rgb, ...] = (
    (226, 220, 208), (205, 200, 192), (186, 178, 166), (232, 229, 224), (168, 160, 150),
)  # fmt: skip
TILE_ROOFS: tuple[Rgb, ...] = (
    (150, 96, 74), (134, 84, 68), (120, 100, 88), (92, 86, 82), (164, 116, 88), (110, 106, 104),
)  # fmt: skip


def family(rng: np.random.Generator, colours: tuple[Rgb, ...]) -> list[Rgb]:
    """Draws the two or three colours that a district is built in."""
    picks = rng.choice(len(colours), size=int(rng.integers(2, 4)), replace=False)
    return [colours[int(index)] for index in picks]


def vary(rng: np.random.Generator, rgb: Rgb, spread: float) -> Rgb:
    """Changes the brightness of a colour a lot and its tint a little."""
    shift = rng.normal(0, spread) + rng.normal(0, spread / 5, 3)
    red, green, blue = (int(v) for v in np.clip(np.array(rgb) + shift, 15, 246))
    return red, green, blue


def closed(points: Points) -> Points:
    """Repeats the first point at the end."""
    return np.vstack([points, points[:1]])


def rows(rect: Rect, lot_d: float, street_w: float) -> Iterator[float]:
    """Tops of the strips that two lots and the street between them take."""
    pitch = 2 * lot_d + street_w + 1.0
    count = max(1, int(rect.height / pitch))
    offset = max(0.0, (rect.height - count * pitch) / 2)
    for index in range(count):
        yield rect.top + offset + index * pitch


def cells(rect: Rect, width: float, height: float) -> Iterator[Rect]:
    """Cuts into equal cells of about the given size, row by row."""
    columns, lines = max(1, round(rect.width / width)), max(1, round(rect.height / height))
    dx, dy = rect.width / columns, rect.height / lines
    for line in range(lines):
        for column in range(columns):
            left, top = rect.left + column * dx, rect.top + line * dy
            yield Rect(left, top, left + dx, top + dy)


def parcels(rect: Rect, rng: np.random.Generator, size_m: float) -> Iterator[Rect]:
    """Cuts at random places until no side is much longer than the size."""
    if max(rect.width, rect.height) < size_m * 1.6:
        yield rect
        return
    for half in rect.split(rng.uniform(0.35, 0.65), across=rect.width > rect.height):
        yield from parcels(half, rng, size_m)


def add_street(plan: Plan, rect: Rect, y: float, width_m: float, rng: np.random.Generator) -> None:
    """A street through the block at height ``y``: open, or a dead end with a turning circle."""
    left, right = rect.left - 12, rect.right + 12
    draw = rng.random()
    if draw < 0.4 and rect.width > 60:
        end = rect.left + 14 if draw < 0.2 else rect.right - 14
        left, right = (end, right) if draw < 0.2 else (left, end)
        plan.road(closed(circle((end, y), 4.5, 16)), "street", width_m)
    plan.road(np.array([(left, y), (right, y)]), "street", width_m)


def add_trees(
    plan: Plan,
    rect: Rect,
    rng: np.random.Generator,
    *,
    density: float,
    radius_m: tuple[float, float],
) -> None:
    """Plants trees at random places, ``density`` per square metre."""
    count = rng.poisson(max(0.0, rect.width) * max(0.0, rect.height) * density)
    xy = rng.uniform((rect.left, rect.top), (rect.right, rect.bottom), size=(count, 2))
    _plant(plan, xy, rng, radius_m)


def add_tree_row(
    plan: Plan,
    start: tuple[float, float],
    end: tuple[float, float],
    rng: np.random.Generator,
    *,
    pitch_m: float = 10.0,
    radius_m: tuple[float, float] = (1.4, 2.6),
) -> None:
    """Plants trees in a line, with gaps."""
    length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    shares = np.arange(0.5, max(1.0, length / pitch_m)) * pitch_m / max(length, pitch_m)
    shares = shares[rng.random(len(shares)) < 0.85]
    xy = np.array(start) + shares[:, None] * (np.array(end) - start)
    _plant(plan, xy + rng.normal(0, 0.5, xy.shape), rng, radius_m)


def add_parking(plan: Plan, rect: Rect, rng: np.random.Generator) -> None:
    """A car park: double rows of bays along x with aisles between, partly taken."""
    plan.patch(rect.corners(), "parking", furrow_rad=0.0)
    share = rng.uniform(0.2, 0.9)
    for y in np.arange(rect.top + 3.5, rect.bottom - 2.5, 8.0):
        x = np.arange(rect.left + 2.0, rect.right - 2.0, 2.7)
        x = x[rng.random(len(x)) < share]
        plan.park_cars(np.column_stack([x, np.full(len(x), y)]), np.pi / 2)


def _plant(plan: Plan, xy: Points, rng: np.random.Generator, radius_m: tuple[float, float]) -> None:
    radius = rng.uniform(*radius_m, size=len(xy))
    plan.plant(xy, radius, radius * rng.uniform(1.6, 2.6, size=len(xy)), rng.random(len(xy)))
