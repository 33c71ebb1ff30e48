"""Outlines with fewer vertices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .errors import MissingDependencyError

if TYPE_CHECKING:
    from .polygons import Polygon

try:
    import shapely
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "shapely", extra="geo", purpose="simplifying outlines"
    ) from error


def simplified(polygon: Polygon, tolerance_px: float) -> Polygon:
    """Returns a polygon whose outline is nowhere farther from its own than a tolerance.

    Its vertices are some of its own. No ring crosses itself or another; neighbouring regions may
    overlap a little or leave slivers between them. ``area_px`` stays that of the pixels.
    """
    exact = shapely.Polygon(polygon.exterior_xy, polygon.holes)
    fewer = exact.simplify(tolerance_px, preserve_topology=True)
    exterior, *holes = (
        np.array(ring.coords[:-1], np.int32) for ring in (fewer.exterior, *fewer.interiors)
    )
    return replace(polygon, exterior_xy=exterior, holes=tuple(holes))
