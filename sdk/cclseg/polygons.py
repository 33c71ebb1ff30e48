"""Outlines of mask regions as polygons that follow the pixels' edges exactly.

Contours through pixel centres lose half a pixel all around; here vertices are pixel corners, so a
polygon's area is its number of pixels. Regions are 4-connected: pixels that touch at a corner only
belong to two regions. No ring touches itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import MissingDependencyError

if TYPE_CHECKING:
    from .frame import Mask

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="tracing masks") from error

Ring = NDArray[np.int32]
"""(n, 2) vertices (x, y) in pixels; (0, 0) is the upper left corner of the first pixel. The last
vertex is not the first one again."""


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """One connected region of a mask.

    Attributes:
        class_id: Class of the region.
        class_name: Its name.
        exterior_xy: Outline, clockwise on the screen.
        holes: Outlines of the holes, counter-clockwise.
        area_px: Number of pixels of the region, holes left out.
    """

    class_id: int
    class_name: str
    exterior_xy: Ring
    holes: tuple[Ring, ...]
    area_px: int


def polygons_of(mask: Mask, class_names: Sequence[str], *, min_area_px: int = 1) -> list[Polygon]:
    """Returns the regions of a mask, class by class, large ones first.

    Args:
        mask: (H, W) class ids; other ids (no data) give no polygons.
        class_names: One name per class id.
        min_area_px: Regions with fewer pixels are left out.
    """
    polygons = []
    for class_id, name in enumerate(class_names):
        regions = [
            Polygon(class_id, name, exterior, holes, area_px)
            for exterior, holes, area_px in _regions(mask == class_id)
            if area_px >= min_area_px
        ]
        polygons += sorted(regions, key=lambda polygon: -polygon.area_px)
    return polygons


def _regions(inside: NDArray[np.bool_]) -> Iterator[tuple[Ring, tuple[Ring, ...], int]]:
    """Yields outline, holes and area of each 4-connected region."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        inside.view(np.uint8), connectivity=4, ltype=cv2.CV_32S
    )
    exteriors: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = {}
    for ring, (row, column) in _rings(inside):
        label = int(labels[row, column])
        for loop in _loops(ring):
            if _doubled_area(loop) > 0:
                exteriors[label] = loop
            else:
                holes.setdefault(label, []).append(loop)
    for label in range(1, count):
        area_px = int(stats[label, cv2.CC_STAT_AREA])
        yield exteriors[label], tuple(holes.get(label, ())), area_px


def _rings(inside: NDArray[np.bool_]) -> Iterator[tuple[Ring, tuple[int, int]]]:
    """Yields every closed outline with a pixel (row, column) of the region that it bounds.

    An edge is a side of an inside pixel whose neighbour on that side is outside: 0 top, 1 right,
    2 bottom, 3 left, each walked with the pixel on its right hand. Behind an edge comes the next
    side of the same pixel if the pixel ahead is outside, else the same side of the pixel ahead if
    its neighbour is outside, else the previous side of that neighbour.
    """
    padded = np.pad(inside, 1)
    width = padded.shape[1]
    flat = padded.ravel()
    outward = (-width, 1, width, -1)
    ahead = (1, width, -1, -width)
    pixels = [np.flatnonzero(padded)] * 4
    pixels = [some[~flat[some + step]] for some, step in zip(pixels, outward, strict=True)]
    sides = np.repeat(np.arange(4), [len(some) for some in pixels])
    keys = np.concatenate(pixels) + sides * flat.size
    following = np.concatenate(
        [_following(flat, pixels[side], side, ahead[side], outward[side]) for side in range(4)]
    )
    after = np.searchsorted(keys, following)
    corner = np.zeros(len(keys), bool)
    corner[after] = sides[after] != sides
    while not corner[after].all():  # jump over straight runs, twice as far each time
        straight = ~corner[after]
        after[straight] = after[after[straight]]
    row, column = np.divmod(keys % flat.size, width)
    x = column - 1 + np.isin(sides, (1, 2))
    y = row - 1 + np.isin(sides, (2, 3))
    vertices = np.stack([x, y], axis=1).astype(np.int32)
    for ring in _cycles(after, np.flatnonzero(corner)):
        yield vertices[ring], (int(row[ring[0]]) - 1, int(column[ring[0]]) - 1)


def _following(
    flat: NDArray[np.bool_], pixels: NDArray[np.intp], side: int, ahead: int, outward: int
) -> NDArray[np.intp]:
    """Returns the key of the edge behind each edge of one side."""
    front, diagonal = pixels + ahead, pixels + ahead + outward
    return np.select(
        [~flat[front], ~flat[diagonal]],
        [pixels + (side + 1) % 4 * flat.size, front + side * flat.size],
        diagonal + (side - 1) % 4 * flat.size,
    )


def _cycles(after: NDArray[np.intp], starts: NDArray[np.intp]) -> Iterator[list[int]]:
    """Follows a permutation from each start not yet visited."""
    successor = after.tolist()
    visited = bytearray(len(successor))
    for start in starts.tolist():
        ring = []
        edge = start
        while not visited[edge]:
            visited[edge] = True
            ring.append(edge)
            edge = successor[edge]
        if ring:
            yield ring


def _loops(ring: Ring) -> Iterator[Ring]:
    """Cuts a ring where it touches itself, as geometry libraries want it.

    A bay that is closed by two pixels touching at a corner becomes a hole; a hole of parts that
    touch at a corner becomes several.
    """
    vertices = ring.tolist()
    if len(set(map(tuple, vertices))) == len(vertices):
        yield ring
        return
    path: list[tuple[int, int]] = []
    places: dict[tuple[int, int], int] = {}
    for x, y in vertices:
        if (x, y) in places:
            begin = places[x, y]
            yield np.array(path[begin:], np.int32)
            for vertex in path[begin:]:
                del places[vertex]
            del path[begin:]
        places[x, y] = len(path)
        path.append((x, y))
    yield np.array(path, np.int32)


def _doubled_area(ring: Ring) -> int:
    """Returns twice the signed area, positive for clockwise on the screen (y points down)."""
    x, y = ring.astype(np.int64).T
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
