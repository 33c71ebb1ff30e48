"""Fills blocks of the plan with places where people live and work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .blocks import (
    PALE_ROOFS,
    TILE_ROOFS,
    add_parking,
    add_street,
    add_tree_row,
    add_trees,
    cells,
    closed,
    family,
    rows,
    vary,
)
from .plan import Rect, circle

if TYPE_CHECKING:
    from .plan import Part, Plan, Rgb, RoofKind
    from .style import SceneStyle

_HALL_ROOFS: tuple[Rgb, ...] = (
    (236, 236, 232), (214, 216, 220), (212, 126, 78), (184, 180, 206), (190, 204, 178),
    (150, 160, 174), (224, 220, 208), (120, 132, 146),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Homes:
    """What the houses of one district have in common."""

    roofs: list[Rgb]
    roof: RoofKind
    fill: float  # share of a lot's sides that the house takes
    green: float  # share of gardens with a lawn
    walled: bool


def fill_villas(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Rows of single houses with gardens along streets."""
    desert = style.climate == "desert"
    lot_w, lot_d, street_w = rng.uniform(12, 24), rng.uniform(20, 32), rng.uniform(5.5, 7.5)
    homes = _Homes(
        family(rng, PALE_ROOFS if desert else TILE_ROOFS),
        "hip" if not desert or rng.random() < 0.45 else "flat",
        rng.uniform(0.62, 0.86),
        rng.uniform(0.1, 0.9) if desert else rng.uniform(0.7, 1.0),
        walled=bool(desert or rng.random() < 0.3),
    )
    plan.patch(rect.corners(), "paving" if desert else "lawn")
    avenue = rng.random() < 0.4
    for top in rows(rect, lot_d, street_w):
        middle = top + lot_d + street_w / 2
        add_street(plan, rect, middle, street_w, rng)
        for side in (-1, 1):
            strip_top = top if side < 0 else top + lot_d + street_w
            if strip_top + lot_d > rect.bottom:
                continue
            strip = Rect(rect.left, strip_top, rect.right, strip_top + lot_d)
            for lot in cells(strip, lot_w, lot_d):
                if rng.random() > 0.05:
                    _villa(plan, lot, rng, homes, street_side=-side)
            if avenue:
                y = middle + side * (street_w / 2 + 2.2)
                add_tree_row(plan, (rect.left, y), (rect.right, y), rng, pitch_m=lot_w)


def _villa(
    plan: Plan, lot: Rect, rng: np.random.Generator, homes: _Homes, *, street_side: int
) -> None:
    """A house of one or two wings, its garden on the side away from the street."""
    yard = rng.normal(1.0, 0.07)
    if homes.walled:
        plan.patch(lot.inset(0.3).corners(), "yard", shade=yard)
        plan.wall(closed(lot.inset(0.4).corners()))
    length = lot.width * homes.fill * rng.uniform(0.92, 1.08)
    width = lot.height * homes.fill * 0.84
    spare = lot.height - width
    x, y = lot.centre
    parts: list[Part] = [(0.0, 0.0, length, width * 0.72)]
    if rng.random() < 0.7:
        flip = 1 if rng.random() < 0.5 else -1
        parts.append((flip * length * 0.24, 0.0, length * 0.5, width))
    garden_d = spare * 0.55
    back = lot.top + 0.8 if street_side > 0 else lot.bottom - 0.8 - garden_d
    garden = Rect(lot.left + 0.7, back, lot.right - 0.7, back + garden_d)
    if rng.random() < homes.green:
        plan.patch(garden.corners(), "lawn", shade=yard)
        add_trees(plan, lot, rng, density=0.008, radius_m=(1.0, 2.3))
    if rng.random() < 0.07:
        px, py = garden.centre
        plan.patch(Rect(px - 3.6, py - 1.8, px + 3.6, py + 1.8).corners(), "pool")
    plan.building(
        (x, y + street_side * spare * 0.12),
        tuple(parts),
        rng.uniform(5, 8.5),
        roof=homes.roof,
        rgb=vary(rng, homes.roofs[int(rng.integers(len(homes.roofs)))], 12),
    )


def fill_terraces(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Rows of joined houses."""
    desert = style.climate == "desert"
    depth, street_w = rng.uniform(9, 13), rng.uniform(5.5, 7)
    garden, front = rng.uniform(5, 12), 3.5
    lot_d = front + depth + garden
    rgb = family(rng, PALE_ROOFS if desert else TILE_ROOFS)[0]
    plan.patch(rect.corners(), "paving" if desert else "lawn")
    for top in rows(rect, lot_d, street_w):
        add_street(plan, rect, top + lot_d + street_w / 2, street_w, rng)
        for y in (top + garden + depth / 2, top + lot_d + street_w + front + depth / 2):
            left = rect.left + 4
            while y + depth / 2 < rect.bottom and left < rect.right - 20:
                length = min(rng.uniform(24, 60), rect.right - 4 - left)
                wings: tuple[Part, ...] = ((0, 0, length, depth),)
                roof: RoofKind = "flat" if desert else "gable"
                plan.building(
                    (left + length / 2, y), wings, rng.uniform(6, 9), roof=roof,
                    rgb=vary(rng, rgb, 10),
                )  # fmt: skip
                left += length + rng.uniform(3, 9)
        strip = Rect(rect.left, top, rect.right, top + garden)
        add_trees(plan, strip, rng, density=rng.uniform(0.002, 0.012), radius_m=(1.2, 2.6))


def fill_towers(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """High-rise buildings on podiums, with plazas, lawns and car parks between."""
    plan.patch(rect.corners(), "paving")
    pitch = rng.uniform(56, 80)
    for cell in cells(rect, pitch, pitch):
        lot = cell.inset(5)
        draw = rng.random()
        if draw < 0.66:
            side = rng.uniform(20, 34)
            podium = side + rng.uniform(6, 18)
            x, y = lot.centre
            centre = (x + rng.uniform(-4, 4), y + rng.uniform(-4, 4))
            rgb = vary(rng, PALE_ROOFS[int(rng.integers(len(PALE_ROOFS)))], 20)
            plan.building(centre, ((0, 0, podium, podium * 0.9),), rng.uniform(5, 12), rgb=rgb)
            height_m = rng.uniform(30, 110)
            plan.building(centre, _tower_parts(rng, side), height_m, rgb=vary(rng, rgb, 20))
        elif draw < 0.82:
            add_parking(plan, lot, rng)
        else:
            plan.patch(lot.corners(), "lawn")
            add_trees(plan, lot, rng, density=0.012, radius_m=(1.5, 3.2))
        if draw < 0.9:
            add_tree_row(plan, (cell.left, cell.top), (cell.right, cell.top), rng)
        if cell.left == rect.left and cell.top > rect.top:
            plan.road(
                np.array([(rect.left - 12, cell.top), (rect.right + 12, cell.top)]), "street", 7
            )
    if style.climate == "temperate":
        add_trees(plan, rect, rng, density=0.002, radius_m=(2, 4))


def _tower_parts(rng: np.random.Generator, side: float) -> tuple[Part, ...]:
    draw = rng.random()
    if draw < 0.5:
        return ((0, 0, side, side * rng.uniform(0.7, 1.0)),)
    if draw < 0.8:
        return ((0, 0, side, side * 0.5), (0, 0, side * 0.5, side))
    return ((0, 0, side, side * 0.6), (side * 0.25, side * 0.3, side * 0.5, side * 0.5))


def fill_apartments(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Blocks of flats: slabs, angles and courtyards around car parks."""
    plan.patch(rect.corners(), "paving" if style.climate == "desert" else "lawn")
    rgb, height_m = family(rng, PALE_ROOFS)[0], rng.uniform(10, 24)
    for cell in cells(rect, rng.uniform(55, 90), rng.uniform(45, 70)):
        lot = cell.inset(6)
        if cell.left == rect.left and cell.bottom < rect.bottom - 8:
            add_street(plan, rect, cell.bottom, 6.5, rng)
        if rng.random() < 0.12:
            plan.patch(lot.corners(), "park")
            continue
        depth = rng.uniform(11, 15)
        parts = _block_parts(rng, lot.width, lot.height, depth)
        storeys_m = height_m * rng.uniform(0.8, 1.2)
        plan.building(lot.centre, parts, storeys_m, rgb=vary(rng, rgb, 12))
        court = lot.inset(depth + 3)
        if min(court.width, court.height) > 9:
            if rng.random() < 0.6:
                add_parking(plan, court, rng)
            else:
                plan.patch(court.corners(), "lawn")
                add_trees(plan, court, rng, density=0.01, radius_m=(1.5, 3))
        add_trees(plan, cell, rng, density=0.003, radius_m=(1.5, 3))


def _block_parts(
    rng: np.random.Generator, length: float, width: float, depth: float
) -> tuple[Part, ...]:
    """A slab, an angle, a U or a closed courtyard within length x width."""
    top = (0.0, -(width - depth) / 2, length, depth)
    bottom = (0.0, (width - depth) / 2, length, depth)
    left = (-(length - depth) / 2, 0.0, depth, width)
    right = ((length - depth) / 2, 0.0, depth, width)
    forms = ((top,), (top, left), (top, left, right), (top, bottom), (top, bottom, left, right))
    return forms[int(rng.integers(len(forms)))]


def fill_rings(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Houses in rings around a green square, as in planned settlements."""
    desert = style.climate == "desert"
    plan.patch(rect.corners(), "paving" if desert else "lawn")
    centre, core = rect.centre, rng.uniform(16, 26)
    plan.patch(circle(centre, core), "lawn")
    plan.road(closed(circle(centre, core + 5)), "street", 7.5)
    for direction in (np.array([np.cos(a), np.sin(a)]) for a in np.arange(4) * np.pi / 2 + 0.8):
        reach = min(rect.width, rect.height) / 2 + 12
        plan.road(np.array([centre + core * direction, centre + reach * direction]), "street", 6.5)
    rgb = family(rng, PALE_ROOFS if desert else TILE_ROOFS)[0]
    depth = rng.uniform(10, 13)
    radius = core + 9 + 3 + depth / 2
    while radius + depth < np.hypot(rect.width, rect.height) / 2:
        count = max(6, round(2 * np.pi * radius / rng.uniform(22, 32)))
        length = 2 * np.pi * radius / count * 0.74
        for angle in np.arange(count) * (2 * np.pi / count):
            spot = (centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle))
            if _is_inside(rect, spot, depth):
                wings: tuple[Part, ...] = (
                    (0, 0, length, depth * 0.8), (length * 0.3, 0, depth * 0.7, depth * 1.15),
                )  # fmt: skip
                plan.building(
                    spot, wings, rng.uniform(6, 12), rgb=vary(rng, rgb, 10),
                    roof="flat" if desert else "hip", angle_rad=angle + np.pi / 2,
                )  # fmt: skip
        if radius + depth < min(rect.width, rect.height) / 2 - 8:
            plan.road(closed(circle(centre, radius + depth / 2 + 7)), "street", 6.5)
        radius += depth + 2 * 7 + depth * 0.2
    add_trees(plan, rect, rng, density=0.003, radius_m=(1.2, 2.6))


def _is_inside(rect: Rect, spot: tuple[float, float], margin: float) -> bool:
    inner = rect.inset(margin)
    return inner.left < spot[0] < inner.right and inner.top < spot[1] < inner.bottom


def fill_industry(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Long halls in rows with yards and car parks."""
    plan.patch(rect.corners(), "soil" if rng.random() < 0.5 else "paving")
    length, width, gap = rng.uniform(45, 110), rng.uniform(22, 42), rng.uniform(10, 17)
    colours = family(rng, _HALL_ROOFS)
    for index, cell in enumerate(cells(rect, length + gap, width + gap)):
        lot = cell.inset(gap / 2)
        draw = rng.random()
        if draw < 0.78:
            plan.building(
                lot.centre, ((0, 0, lot.width, lot.height),), rng.uniform(7, 13), roof="hall",
                rgb=vary(rng, colours[index // 2 % len(colours)], 8),
            )  # fmt: skip
        elif draw < 0.9:
            add_parking(plan, lot, rng)
        if cell.left == rect.left and cell.bottom < rect.bottom - 8:
            add_street(plan, rect, cell.bottom, min(gap - 4, 8), rng)
