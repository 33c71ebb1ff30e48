"""Frames and regions on the ground as GeoJSON features (RFC 7946).

Coordinates are longitude and latitude in degrees, WGS 84. Outer rings run counter-clockwise, holes
clockwise, and the last vertex is the first one again (section 3.1.6); what crosses the antimeridian
is cut there (section 3.1.9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .footprint import cut

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .footprint import GroundView, Points
    from .frame import Frame
    from .polygons import Polygon
    from .result import Segmentation

Feature: TypeAlias = dict[str, Any]

_DECIMALS = 8  # a millimetre


def frame_feature(frame: Frame, result: Segmentation, view: GroundView | None, why: str) -> Feature:
    """Returns the feature of a frame: its footprint, time, pose and share of each class.

    Args:
        frame: The frame.
        result: What was found in it.
        view: The ground in the frame; None gives a feature without geometry.
        why: Why there is no geometry; empty where there is one.
    """
    properties: dict[str, Any] = {
        "kind": "frame",
        "frame": frame.name,
        "index": frame.index,
        "stream": frame.stream,
        "timestamp_s": frame.timestamp_s,
        "age_ms": result.age_ms,
        "pose": None if frame.pose is None else asdict(frame.pose),
        "fractions": result.fractions(),
    }
    geometry = None
    if view is not None:
        ring = view.frame_ring()
        geometry = _geometry([view.lonlat(view.local_m(ring))]) if len(ring) >= 3 else None
        properties |= {
            "gsd_m": view.gsd_m,
            "area_m2": view.area_m2(ring),
            "shows_horizon": view.shows_horizon,
        }
        why = why if geometry else "the frame shows no ground within reach"
    if geometry is None:
        properties["no_geometry"] = why
    return _feature(geometry, properties)


def region_features(
    frame: Frame,
    result: Segmentation,
    view: GroundView,
    *,
    min_area_m2: float = 0.0,
    simplify_px: float = 0.0,
) -> list[Feature]:
    """Returns a feature for every connected region of a mask that shows ground.

    Args:
        frame: The frame.
        result: What was found in it.
        view: The ground in the frame.
        min_area_m2: Regions that are smaller on the ground are left out.
        simplify_px: How far outlines may lie beside the pixels' edges, to be shorter; figures
            stay exact.

    Raises:
        MissingDependencyError: Outlines cannot be simplified without shapely.
    """
    polygons = result.polygons()
    sums = np.pad(result.confidence.cumsum(0, np.float64).cumsum(1), ((1, 0), (1, 0)))
    features = []
    for polygon, rings in zip(polygons, _on_ground(polygons, view), strict=True):
        if not rings:
            continue
        area_m2 = _area(rings[0]) - sum(_area(hole) for hole in rings[1:])
        if area_m2 < min_area_m2:
            continue
        properties = {
            "kind": "region",
            "frame": frame.name,
            "index": frame.index,
            "stream": frame.stream,
            "timestamp_s": frame.timestamp_s,
            "class": polygon.class_name,
            "class_id": polygon.class_id,
            "area_m2": area_m2,
            "area_px": polygon.area_px,
            "confidence": _mean(sums, polygon),
        }
        drawn = _on_ground([_simplified(polygon, simplify_px)], view)[0] if simplify_px else rings
        geometry = _geometry([view.lonlat(ring) for ring in drawn or rings])
        features.append(_feature(geometry, properties))
    return features


def _simplified(polygon: Polygon, tolerance_px: float) -> Polygon:
    from .simplify import simplified

    return simplified(polygon, tolerance_px)


def _on_ground(polygons: Sequence[Polygon], view: GroundView) -> list[list[Points]]:
    """Returns each polygon's rings in local metres, the outer one first; none without ground."""
    clipped = [[view.clipped(ring) for ring in (p.exterior_xy, *p.holes)] for p in polygons]
    kept = [[ring for ring in rings if len(ring) >= 3] for rings in clipped]
    every = [ring for rings in kept for ring in rings]
    if not every:
        return kept
    ends = np.cumsum([len(ring) for ring in every])
    local = iter(np.split(view.local_m(np.concatenate(every)), ends[:-1]))
    return [[next(local) for _ in rings] for rings in kept]


def _mean(sums: NDArray[np.float64], polygon: Polygon) -> float:
    """Returns the mean over a polygon's pixels of what ``sums`` is the integral image of.

    Green's theorem: only the vertical edges count, and outer rings and holes run opposite ways.
    """
    total = 0.0
    for ring in (polygon.exterior_xy, *polygon.holes):
        x, y = ring.T
        total += float((sums[np.roll(y, -1), x] - sums[y, x]).sum())
    return total / polygon.area_px


def _area(ring: Points) -> float:
    return abs(_signed_area(ring[:, :2]))


def _signed_area(ring: Points) -> float:
    x, y = (ring - ring[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _geometry(rings: Sequence[Points]) -> dict[str, Any]:
    """Returns a Polygon of rings of (longitude, latitude), or a MultiPolygon at 180 degrees."""
    first = rings[0][0, 0]
    # What crosses the antimeridian is made continuous first, and cut then.
    rings = [ring - [360, 0] * np.round((ring[:, :1] - first) / 360) for ring in rings]
    east_end, west_end = (edge(rings[0][:, 0]) for edge in (np.max, np.min))
    if west_end >= -180 and east_end <= 180:
        return {"type": "Polygon", "coordinates": _coordinates(rings)}
    border = 180.0 if east_end > 180 else -180.0
    parts = []
    for side in (1.0, -1.0):
        halves = [cut(ring, np.array([side, 0.0, -side * border])) for ring in rings]
        turn = np.array([-360 * side if side * border > 0 else 0.0, 0.0])
        moved = [half + turn for half in halves if len(half) >= 3]
        if moved:
            parts.append(_coordinates(moved))
    return {"type": "MultiPolygon", "coordinates": parts}


def _coordinates(rings: Sequence[Points]) -> list[list[list[float]]]:
    coordinates = []
    for place, ring in enumerate(rings):
        clockwise = _signed_area(ring) < 0
        turned = ring[::-1] if clockwise == (place == 0) else ring
        closed = np.concatenate([turned, turned[:1]])
        coordinates.append(closed.round(_DECIMALS).tolist())
    return coordinates


def _feature(geometry: dict[str, Any] | None, properties: dict[str, Any]) -> Feature:
    rounded = {name: _rounded(value) for name, value in properties.items()}
    return {"type": "Feature", "geometry": geometry, "properties": rounded}


def _rounded(value: Any) -> Any:  # noqa: ANN401 - whatever json accepts
    if isinstance(value, float):
        return round(value, _DECIMALS)
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return value
