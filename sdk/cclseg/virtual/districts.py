"""Fills blocks of the plan with one use each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .plan import Plan, Points, Rect, Rgb, RoofKind, circle
from .style import SceneStyle

Filler = Callable[[Plan, Rect, np.random.Generator, SceneStyle], None]

_PALE_ROOFS: tuple[Rgb, ...] = (
    (226, 220, 208), (205, 200, 192), (186, 178, 166), (236, 233, 228), (168, 160, 150),
)  # fmt: skip
_TILE_ROOFS: tuple[Rgb, ...] = (
    (156, 92, 66), (138, 78, 60), (120, 96, 82), (92, 84, 80), (172, 112, 78), (110, 106, 104),
)  # fmt: skip
_HALL_ROOFS: tuple[Rgb, ...] = (
    (240, 240, 236), (214, 216, 220), (226, 120, 62), (184, 178, 214), (196, 214, 178),
    (150, 160, 176), (228, 224, 210), (120, 134, 150),
)  # fmt: skip


def fill_villas(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Rows of single houses with gardens along streets."""
    lot_w, lot_d, street_w = rng.uniform(12, 24), rng.uniform(20, 32), rng.uniform(5.5, 7.5)
    roofs = _family(rng, _PALE_ROOFS if style.climate == "desert" else _TILE_ROOFS)
    roof: RoofKind = "hip" if style.climate == "temperate" or rng.random() < 0.45 else "flat"
    green = rng.uniform(0.1, 0.9) if style.climate == "desert" else rng.uniform(0.7, 1.0)
    fill = rng.uniform(0.62, 0.86)
    plan.patch(rect.corners(), "paving" if style.climate == "desert" else "lawn")
    for row in _rows(rect, lot_d, street_w):
        _street(plan, rect, row + lot_d + street_w / 2, street_w, rng)
        for side in (0, 1):
            top = row if side == 0 else row + lot_d + street_w
            if top + lot_d > rect.bottom:
                continue
            count = int(rect.width / lot_w)
            for index in range(count):
                left = rect.left + (index + (rect.width / lot_w - count) / 2) * lot_w
                lot = Rect(left, top, left + lot_w, top + lot_d)
                if rng.random() < 0.06:
                    continue
                shade = _vary(rng, roofs[int(rng.integers(len(roofs)))], 14)
                _villa(plan, lot, rng, shade, roof, fill, green, back_up=side == 0)


def fill_terraces(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Rows of joined houses."""
    depth, street_w = rng.uniform(9, 13), rng.uniform(5.5, 7)
    garden, front = rng.uniform(5, 12), 3.5
    lot_d = front + depth + garden
    rgb = _family(rng, _PALE_ROOFS if style.climate == "desert" else _TILE_ROOFS)[0]
    roof: RoofKind = "flat" if style.climate == "desert" else "gable"
    plan.patch(rect.corners(), "paving" if style.climate == "desert" else "lawn")
    for row in _rows(rect, lot_d, street_w):
        _street(plan, rect, row + lot_d + street_w / 2, street_w, rng)
        for side in (0, 1):
            y = (
                row + garden + depth / 2
                if side == 0
                else row + lot_d + street_w + front + depth / 2
            )
            x = rect.left + 4
            while y + depth / 2 < rect.bottom and x < rect.right - 20:
                length = min(rng.uniform(24, 60), rect.right - 4 - x)
                plan.building(
                    (x + length / 2, y), ((0, 0, length, depth),), rng.uniform(6, 9),
                    roof=roof, rgb=_vary(rng, rgb, 12),
                )  # fmt: skip
                x += length + rng.uniform(3, 9)
            strip = Rect(rect.left, row, rect.right, row + garden)
            _scatter(plan, strip, rng, density=0.008 * rng.uniform(0.3, 1.5), radius_m=(1.2, 2.6))


def fill_towers(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """High-rise buildings on podiums, with plazas, lawns and car parks between."""
    plan.patch(rect.corners(), "paving")
    pitch = rng.uniform(58, 85)
    for cell in _cells(rect, pitch, pitch):
        kind = rng.random()
        lot = cell.inset(6)
        if kind < 0.66:
            side = rng.uniform(20, 34)
            podium = side + rng.uniform(6, 18)
            x, y = lot.centre
            centre = (x + rng.uniform(-4, 4), y + rng.uniform(-4, 4))
            rgb = _vary(rng, _PALE_ROOFS[int(rng.integers(5))], 20)
            plan.building(centre, ((0, 0, podium, podium * 0.9),), rng.uniform(5, 12), rgb=rgb)
            plan.building(
                centre, _tower_parts(rng, side), rng.uniform(30, 110), rgb=_vary(rng, rgb, 20)
            )
        elif kind < 0.82:
            plan.patch(lot.corners(), "parking", furrow_rad=0.0)
        else:
            plan.patch(lot.corners(), "lawn")
            _scatter(plan, lot, rng, density=0.012, radius_m=(1.5, 3.2))
    if style.climate == "temperate":
        _scatter(plan, rect, rng, density=0.002, radius_m=(2, 4))


def fill_apartments(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Blocks of flats: slabs, angles and courtyards around car parks."""
    plan.patch(rect.corners(), "paving" if style.climate == "desert" else "lawn")
    pitch_x, pitch_y = rng.uniform(55, 90), rng.uniform(45, 70)
    rgb = _family(rng, _PALE_ROOFS)[0]
    height_m = rng.uniform(10, 24)
    for cell in _cells(rect, pitch_x, pitch_y):
        lot = cell.inset(5)
        if rng.random() < 0.12:
            plan.patch(lot.corners(), "park")
            continue
        depth = rng.uniform(11, 16)
        plan.building(
            lot.centre, _block_parts(rng, lot.width, lot.height, depth),
            height_m * rng.uniform(0.8, 1.2), rgb=_vary(rng, rgb, 12),
        )  # fmt: skip
        yard = lot.inset(depth + 3)
        if min(yard.width, yard.height) > 8:
            plan.patch(yard.corners(), "parking" if rng.random() < 0.6 else "lawn", furrow_rad=0.0)
        _scatter(plan, cell, rng, density=0.003, radius_m=(1.5, 3))
        _street(plan, rect, cell.bottom, 7, rng) if cell.left == rect.left else None


def fill_industry(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Long halls in rows with yards and container stacks."""
    plan.patch(rect.corners(), "soil" if rng.random() < 0.5 else "paving")
    length, width = rng.uniform(45, 110), rng.uniform(22, 42)
    colours = _family(rng, _HALL_ROOFS)
    gap = rng.uniform(9, 16)
    for row, cell in enumerate(_cells(rect, length + gap, width + gap)):
        lot = cell.inset(gap / 2)
        draw = rng.random()
        if draw < 0.76:
            plan.building(
                lot.centre, ((0, 0, lot.width, lot.height),), rng.uniform(7, 13), roof="hall",
                rgb=_vary(rng, colours[row % len(colours)], 8),
            )  # fmt: skip
        elif draw < 0.9:
            plan.patch(lot.corners(), "parking", furrow_rad=0.0)
        if cell.left == rect.left and cell.bottom < rect.bottom - 8:
            _street(plan, rect, cell.bottom, min(gap - 2, 8), rng)


def fill_golf(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """A golf course with ponds, and villas along one side when there is room."""
    if min(rect.width, rect.height) > 170 and rng.random() < 0.6:
        course, homes = rect.split(0.68, across=rect.width > rect.height)
        fill_villas(plan, homes.inset(4), rng, style)
        rect = course
    plan.patch(rect.corners(), "golf")
    _scatter(plan, rect, rng, density=0.0016, radius_m=(1.6, 3.4))


def fill_park(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Lawns, a pond, a sports field, trees."""
    plan.patch(rect.corners(), "park")
    _scatter(plan, rect, rng, density=rng.uniform(0.002, 0.009), radius_m=(1.8, 4.2))
    if min(rect.width, rect.height) > 130:
        x, y = rect.centre
        pitch = Rect(x - 52, y - 34, x + 52, y + 34)
        plan.patch(pitch.corners(), "lawn", rgb=(88, 120, 62), furrow_rad=np.pi / 2)


def fill_empty(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Land that waits: tracks, bare plots, a few shrubs, sometimes service streets."""
    if rng.random() < 0.5:
        shade = _vary(rng, (206, 200, 192), 22) if style.climate == "desert" else None
        plan.patch(rect.inset(rng.uniform(0, 25)).corners(), "soil", rgb=shade)
    if rng.random() < 0.4:
        for y in np.arange(rect.top + 60, rect.bottom - 30, 85.0):
            _street(plan, rect, float(y), 7, rng)
    for _ in range(int(rng.integers(0, 3))):
        ends = rng.uniform((rect.left, rect.top), (rect.right, rect.bottom), size=(3, 2))
        plan.road(ends, "track", rng.uniform(2.5, 4.5))
    _scatter(plan, rect, rng, density=rng.uniform(0, 0.0015), radius_m=(0.8, 1.8))
    for _ in range(int(rng.integers(0, 3))):
        spot = rng.uniform((rect.left + 20, rect.top + 20), (rect.right - 20, rect.bottom - 20))
        size = rng.uniform(10, 24)
        plan.building(
            (float(spot[0]), float(spot[1])), ((0, 0, size, size * 0.6),), 5,
            rgb=_vary(rng, (214, 208, 198), 20),
        )  # fmt: skip


def fill_fields(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Parcels of crops and bare soil; round ones where water comes from a well."""
    if style.climate == "desert" and min(rect.width, rect.height) > 120 and rng.random() < 0.5:
        radius = min(rect.width, rect.height) / 2 - 6
        plan.patch(circle(rect.centre, radius, 64), "crop", furrow_rad=0.0)
        return
    for parcel in _parcels(rect, rng, rng.uniform(60, 130)):
        kind = "crop" if rng.random() < _green_share(style) else "soil"
        furrow = 0.0 if parcel.width > parcel.height else np.pi / 2
        plan.patch(parcel.inset(rng.uniform(0.6, 2.4)).corners(), kind, furrow_rad=furrow)  # type: ignore[arg-type]
        if rng.random() < 0.35:
            hedge = Rect(parcel.left, parcel.top - 2, parcel.right, parcel.top + 2)
            _scatter(plan, hedge, rng, density=0.05, radius_m=(1.5, 3.2))
    if rng.random() < 0.5:
        _farm(plan, rect, rng)


def fill_forest(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Dense trees with clearings."""
    plan.patch(rect.corners(), "wild")
    _scatter(plan, rect, rng, density=0.032, radius_m=(2.0, 4.6))
    if rng.random() < 0.6:
        x, y = rect.centre
        ends = np.array([(rect.left, rng.uniform(rect.top, rect.bottom)), (x, y), (rect.right, y)])
        plan.road(ends, "track", 4.0)


def fill_scrub(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Patches of dense low shrubs, as on a salt marsh."""
    plan.patch(rect.corners(), "scrub")


def fill_rings(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Houses in rings around a green square, as in planned settlements."""
    plan.patch(rect.corners(), "paving" if style.climate == "desert" else "lawn")
    x, y = rect.centre
    reach = min(rect.width, rect.height) / 2
    core = rng.uniform(18, 28)
    plan.patch(circle((x, y), core), "park")
    plan.road(_closed(circle((x, y), core + 5)), "street", 8)
    rgb = _family(rng, _PALE_ROOFS if style.climate == "desert" else _TILE_ROOFS)[0]
    radius, depth = core + 24, rng.uniform(10, 14)
    while radius + depth < reach:
        count = max(6, int(2 * np.pi * radius / rng.uniform(24, 34)))
        for angle in np.arange(count) * (2 * np.pi / count):
            if count > 7 and int(angle / (2 * np.pi) * 8) * 8 % count == 0:
                continue
            spot = (x + radius * np.cos(angle), y + radius * np.sin(angle))
            length = 2 * np.pi * radius / count * 0.72
            plan.building(
                spot, ((0, 0, length, depth), (length * 0.3, depth * 0.5, depth * 0.7, depth)),
                rng.uniform(6, 12), rgb=_vary(rng, rgb, 10), angle_rad=angle + np.pi / 2,
            )  # fmt: skip
        plan.road(_closed(circle((x, y), radius + depth + 8)), "street", 7)
        _scatter_ring(plan, (x, y), radius + depth + 1, rng, count)
        radius += 2 * depth + 22
    for angle in np.arange(4) * np.pi / 2 + np.pi / 4:
        direction = np.array([np.cos(angle), np.sin(angle)])
        ends = np.array([(x, y) + core * direction, (x, y) + reach * 1.3 * direction])
        plan.road(ends, "street", 7)


FILLERS: dict[str, Filler] = {
    "villas": fill_villas,
    "terraces": fill_terraces,
    "towers": fill_towers,
    "apartments": fill_apartments,
    "industry": fill_industry,
    "rings": fill_rings,
    "golf": fill_golf,
    "park": fill_park,
    "empty": fill_empty,
    "fields": fill_fields,
    "forest": fill_forest,
    "scrub": fill_scrub,
}


def _villa(
    plan: Plan, lot: Rect, rng: np.random.Generator, rgb: Rgb, roof: RoofKind, fill: float,
    green: float, *, back_up: bool,
) -> None:  # fmt: skip
    length, width = lot.width * fill * rng.uniform(0.92, 1.08), lot.height * fill * 0.84
    toward_street = (lot.height - width) * 0.12 * (1 if back_up else -1)
    x, y = lot.centre
    centre = (x, y + toward_street)
    parts = [(0.0, 0.0, length, width * 0.72)]
    if rng.random() < 0.7:
        flip = 1 if rng.random() < 0.5 else -1
        parts.append((flip * length * 0.24, 0.0, length * 0.5, width))
    if rng.random() < green:
        deep = (lot.height - width) * 0.55
        top = lot.top + 0.8 if back_up else lot.bottom - 0.8 - deep
        garden = Rect(lot.left + 0.7, top, lot.right - 0.7, top + deep)
        plan.patch(garden.corners(), "lawn")
        if rng.random() < 0.12:
            gx, gy = garden.centre
            plan.patch(Rect(gx - 3.6, gy - 1.8, gx + 3.6, gy + 1.8).corners(), "pool")
        _scatter(plan, garden, rng, density=0.02, radius_m=(1.0, 2.3))
    plan.building(centre, tuple(parts), rng.uniform(5, 8.5), roof=roof, rgb=rgb)


def _farm(plan: Plan, rect: Rect, rng: np.random.Generator) -> None:
    x = rng.uniform(rect.left + 25, max(rect.left + 26, rect.right - 25))
    y = rng.uniform(rect.top + 25, max(rect.top + 26, rect.bottom - 25))
    plan.patch(circle((x, y), 26, 12), "paving")
    for dx, dy, length, width in ((-9, -8, 22, 10), (10, 4, 14, 9), (-8, 11, 18, 8)):
        plan.building(
            (x + dx, y + dy), ((0, 0, length, width),), 6, roof="gable",
            rgb=_vary(rng, _TILE_ROOFS[int(rng.integers(6))], 12),
            angle_rad=float(rng.choice([0, np.pi / 2])),
        )  # fmt: skip
    yard = Rect(x - 32, y - 32, x + 32, y + 32)
    _scatter(plan, yard, rng, density=0.004, radius_m=(2, 4.5))


def _rows(rect: Rect, lot_d: float, street_w: float) -> Iterator[float]:
    """Tops of strips of two lots with a street between."""
    pitch = 2 * lot_d + street_w + 1.0
    count = max(1, int(rect.height / pitch))
    offset = max(0.0, (rect.height - count * pitch) / 2)
    for index in range(count):
        yield rect.top + offset + index * pitch


def _cells(rect: Rect, width: float, height: float) -> Iterator[Rect]:
    """Cuts into equal cells of about the given size, row by row."""
    columns, rows = max(1, round(rect.width / width)), max(1, round(rect.height / height))
    dx, dy = rect.width / columns, rect.height / rows
    for row in range(rows):
        for column in range(columns):
            left, top = rect.left + column * dx, rect.top + row * dy
            yield Rect(left, top, left + dx, top + dy)


def _parcels(rect: Rect, rng: np.random.Generator, size_m: float) -> Iterator[Rect]:
    if max(rect.width, rect.height) < size_m * 1.6:
        yield rect
        return
    for half in rect.split(rng.uniform(0.35, 0.65), across=rect.width > rect.height):
        yield from _parcels(half, rng, size_m)


def _street(plan: Plan, rect: Rect, y: float, width_m: float, rng: np.random.Generator) -> None:
    """A street through the block at height ``y``: open, or a dead end with a turning circle."""
    margin = 12.0
    left, right = rect.left - margin, rect.right + margin
    draw = rng.random()
    if draw < 0.2:
        left = rect.left + 14
        plan.road(_closed(circle((left, y), 4.5, 16)), "street", width_m)
    elif draw < 0.4:
        right = rect.right - 14
        plan.road(_closed(circle((right, y), 4.5, 16)), "street", width_m)
    plan.road(np.array([(left, y), (right, y)]), "street", width_m)


def _scatter(
    plan: Plan,
    rect: Rect,
    rng: np.random.Generator,
    *,
    density: float,
    radius_m: tuple[float, float],
) -> None:
    """Plants trees at random places, ``density`` per square metre."""
    count = rng.poisson(max(0.0, rect.width * rect.height * density))
    xy = rng.uniform((rect.left, rect.top), (rect.right, rect.bottom), size=(count, 2))
    radius = rng.uniform(*radius_m, size=count)
    plan.plant(xy, radius, radius * rng.uniform(1.6, 2.6, size=count), rng.random(count))


def _scatter_ring(
    plan: Plan, centre: tuple[float, float], radius: float, rng: np.random.Generator, count: int
) -> None:
    angles = rng.uniform(0, 2 * np.pi, count)
    xy = np.stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)], 1)
    size = rng.uniform(1.2, 2.4, count)
    plan.plant(xy, size, size * 2, rng.random(count))


def _tower_parts(
    rng: np.random.Generator, side: float
) -> tuple[tuple[float, float, float, float], ...]:
    draw = rng.random()
    if draw < 0.5:
        return ((0, 0, side, side * rng.uniform(0.7, 1.0)),)
    if draw < 0.8:
        return ((0, 0, side, side * 0.5), (0, 0, side * 0.5, side))
    return ((0, 0, side, side * 0.6), (side * 0.25, side * 0.3, side * 0.5, side * 0.5))


def _block_parts(
    rng: np.random.Generator, length: float, width: float, depth: float
) -> tuple[tuple[float, float, float, float], ...]:
    """A slab, an angle, a U or a closed courtyard within length x width."""
    top = (0.0, -(width - depth) / 2, length, depth)
    bottom = (0.0, (width - depth) / 2, length, depth)
    left = (-(length - depth) / 2, 0.0, depth, width)
    right = ((length - depth) / 2, 0.0, depth, width)
    forms = ((top,), (top, left), (top, left, right), (top, bottom), (top, bottom, left, right))
    return forms[int(rng.integers(len(forms)))]


def _family(rng: np.random.Generator, colours: tuple[Rgb, ...]) -> list[Rgb]:
    """Two or three colours that a district is built in."""
    picks = rng.choice(len(colours), size=int(rng.integers(2, 4)), replace=False)
    return [colours[int(index)] for index in picks]


def _vary(rng: np.random.Generator, rgb: Rgb, spread: float) -> Rgb:
    """Changes the brightness of a colour a lot and its tint a little."""
    shift = rng.normal(0, spread) + rng.normal(0, spread / 5, 3)
    red, green, blue = (int(v) for v in np.clip(np.array(rgb) + shift, 15, 250))
    return red, green, blue


def _closed(points: Points) -> Points:
    return np.vstack([points, points[:1]])


def _green_share(style: SceneStyle) -> float:
    shares = {"spring": 0.75, "summer": 0.6, "autumn": 0.35, "winter": 0.45}
    return shares[style.season]
