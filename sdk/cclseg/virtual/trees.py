"""Paints trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._cv import cv2
from .classes import BUILDING, LAND, VEGETATION, WATER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .canvas import Canvas
    from .noise import Field
    from .plan import Plan, Points
    from .tones import Tones


def paint_trees(canvas: Canvas, plan: Plan, tones: Tones, rough: Field) -> Field:
    """Paints crowns as domes around trunks that stand on open ground.

    One distance transform finds the nearest trunk of every pixel, whatever the number of trees.

    Args:
        canvas: Layers to paint on.
        plan: What to paint.
        tones: Colours.
        rough: (N, N) float32 noise near [-1, 1] that frays the edges of crowns.

    Returns:
        (N, N) float32 factor by which leaves are lit, 1 without trees.
    """
    lit: Field = np.ones(canvas.label.shape, np.float32)
    trees, px = _standing(canvas, plan)
    if not len(trees):
        return lit
    seeds = np.ones(canvas.label.shape, np.uint8)
    seeds[px[:, 1], px[:, 0]] = 0
    distance_px, nearest = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((int(nearest.max()) + 1, 3), np.float32)
    table[nearest[px[:, 1], px[:, 0]]] = trees[:, 2:5]
    where = np.nonzero(distance_px * canvas.gsd_m < table[:, 0].max() * 1.3)
    radius, tall, tint = table[nearest[where]].T
    share = distance_px[where] * np.float32(canvas.gsd_m) / radius + np.float32(0.22) * rough[where]
    under = canvas.label[where]
    crown = (share < 1) & (under != BUILDING) & (under != WATER)
    where = (where[0][crown], where[1][crown])
    share, tall, tint = np.clip(share[crown], 0, 1), tall[crown], tint[crown]
    low, high = (np.array(colour[::-1], np.float32) for colour in tones.crowns)
    dome = np.sqrt(1 - share**2)
    canvas.albedo[where] = low + (high - low) * tint[:, None]
    canvas.label[where] = VEGETATION
    canvas.height_m[where] = tall * (np.float32(0.35) + np.float32(0.65) * dome)
    lit[where] = np.float32(0.7) + np.float32(0.42) * dome
    return lit


def _standing(canvas: Canvas, plan: Plan) -> tuple[Points, NDArray[np.int64]]:
    """Trees whose trunk is in the scene and on open ground, with the pixel of the trunk."""
    trees = np.vstack([np.zeros((0, 5)), *plan.trees])
    px = np.floor(trees[:, :2] / canvas.gsd_m).astype(np.int64)
    inside = ((px >= 0) & (px < canvas.size_px)).all(axis=1)
    trees, px = trees[inside], px[inside]
    ground = canvas.label[px[:, 1], px[:, 0]]
    stands = ((ground == LAND) | (ground == VEGETATION)) & (canvas.blocked[px[:, 1], px[:, 0]] == 0)
    return trees[stands], px[stands]
