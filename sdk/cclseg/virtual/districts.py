"""Fills blocks of the plan with one use each; the table ``FILLERS`` names them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .blocks import TILE_ROOFS, add_street, add_trees, parcels, vary
from .housing import (
    fill_apartments,
    fill_industry,
    fill_rings,
    fill_terraces,
    fill_towers,
    fill_villas,
)
from .plan import Plan, Rect, circle
from .style import SceneStyle

if TYPE_CHECKING:
    from .plan import PatchKind, Points

Filler = Callable[[Plan, Rect, np.random.Generator, SceneStyle], None]

_GREEN_SHARE = {"spring": 0.75, "summer": 0.6, "autumn": 0.35, "winter": 0.45}


def fill_golf(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """A golf course with ponds, and villas along one side when there is room."""
    if min(rect.width, rect.height) > 170 and rng.random() < 0.6:
        rect, homes = rect.split(0.68, across=rect.width > rect.height)
        fill_villas(plan, homes.inset(4), rng, style)
    plan.patch(rect.corners(), "golf")
    add_trees(plan, rect, rng, density=0.0016, radius_m=(1.6, 3.4))


def fill_park(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Lawns, a pond, trees, and a running track when there is room."""
    plan.patch(rect.corners(), "park")
    density = rng.uniform(0.002, 0.009)
    if min(rect.width, rect.height) < 130:
        add_trees(plan, rect, rng, density=density, radius_m=(1.8, 4.2))
        return
    x, y = rect.centre
    for top, bottom in ((rect.top, y - 46), (y + 46, rect.bottom)):
        side = Rect(rect.left, top, rect.right, bottom)
        add_trees(plan, side, rng, density=density, radius_m=(1.8, 4.2))
    bends = (circle((x + 42, y), 40, 48), circle((x - 42, y), 40, 48))
    track = np.vstack([bends[0][36:], bends[0][:13], bends[1][12:37]])
    plan.patch(track, "soil", rgb=(152, 104, 90))
    plan.patch(Rect(x - 52, y - 31, x + 52, y + 31).corners(), "lawn", furrow_rad=np.pi / 2)


def fill_empty(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Land that waits: tracks, graded plots, shrubs, sometimes streets without houses."""
    for plot in parcels(rect, rng, rng.uniform(70, 260)):
        if rng.random() < 0.45:
            inner = plot.inset(rng.uniform(1, 14))
            plan.patch(inner.corners(), "graded", shade=rng.normal(1.0, 0.12))
            if rng.random() < 0.4:
                plan.wall(np.vstack([inner.corners(), inner.corners()[:1]]))
    if rng.random() < 0.35:
        for y in np.arange(rect.top + 60, rect.bottom - 30, 85.0):
            add_street(plan, rect, float(y), 6.5, rng)
    for _ in range(int(rng.integers(0, 4))):
        bends = rng.uniform((rect.left, rect.top), (rect.right, rect.bottom), size=(4, 2))
        plan.road(_smooth(bends), "track", rng.uniform(2.2, 4.0))
    add_trees(plan, rect, rng, density=rng.uniform(0, 0.0015), radius_m=(0.8, 1.8))
    for _ in range(int(rng.integers(0, 3))):
        x, y = rng.uniform((rect.left + 20, rect.top + 20), (rect.right - 20, rect.bottom - 20))
        size = rng.uniform(10, 24)
        shed = vary(rng, (214, 208, 198), 20)
        plan.building((float(x), float(y)), ((0, 0, size, size * 0.6),), 5, rgb=shed)


def fill_fields(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Parcels of crops and bare soil; round ones where water comes from a well."""
    if style.climate == "desert" and min(rect.width, rect.height) > 120 and rng.random() < 0.5:
        radius = min(rect.width, rect.height) / 2 - 6
        plan.patch(circle(rect.centre, radius, 64), "crop", furrow_rad=0.0)
        return
    for parcel in parcels(rect, rng, rng.uniform(60, 130)):
        kind: PatchKind = "crop" if rng.random() < _GREEN_SHARE[style.season] else "soil"
        furrow = 0.0 if parcel.width > parcel.height else np.pi / 2
        inner = parcel.inset(rng.uniform(0.6, 2.4))
        plan.patch(inner.corners(), kind, furrow_rad=furrow, shade=rng.normal(1.0, 0.06))
        if rng.random() < 0.35:
            hedge = Rect(parcel.left, parcel.top - 2, parcel.right, parcel.top + 2)
            add_trees(plan, hedge, rng, density=0.07, radius_m=(1.5, 3.2))
    if rng.random() < 0.5:
        _add_farm(plan, rect, rng)


def _add_farm(plan: Plan, rect: Rect, rng: np.random.Generator) -> None:
    x = rng.uniform(rect.left + 25, max(rect.left + 26, rect.right - 25))
    y = rng.uniform(rect.top + 25, max(rect.top + 26, rect.bottom - 25))
    plan.patch(circle((x, y), 26, 12), "paving")
    for dx, dy, length, width in ((-9, -8, 22, 10), (10, 4, 14, 9), (-8, 11, 18, 8)):
        plan.building(
            (x + dx, y + dy), ((0, 0, length, width),), 6, roof="gable",
            rgb=vary(rng, TILE_ROOFS[int(rng.integers(len(TILE_ROOFS)))], 12),
            angle_rad=float(rng.choice([0, np.pi / 2])),
        )  # fmt: skip
    yard = Rect(x - 32, y - 32, x + 32, y + 32)
    add_trees(plan, yard, rng, density=0.004, radius_m=(2, 4.5))


def fill_forest(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Dense trees, with a track through them."""
    plan.patch(rect.corners(), "wild")
    add_trees(plan, rect, rng, density=0.034, radius_m=(2.0, 4.8))
    if rng.random() < 0.6:
        y = rng.uniform((rect.top, rect.top, rect.top), (rect.bottom, rect.bottom, rect.bottom))
        x = (rect.left, rect.centre[0], rect.right)
        plan.road(_smooth(np.column_stack([x, y])), "track", 4.0)


def fill_scrub(plan: Plan, rect: Rect, rng: np.random.Generator, style: SceneStyle) -> None:
    """Dense low shrubs with creeks, as on a salt marsh."""
    plan.patch(rect.corners(), "scrub")


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


def _smooth(bends: Points) -> Points:
    """Rounds the corners of a line (Chaikin's corner cutting, three times)."""
    line = bends
    for _ in range(3):
        near, far = 0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]
        inner = np.stack([near, far], axis=1).reshape(-1, 2)
        line = np.vstack([line[:1], inner, line[-1:]])
    return line
