"""Cuts frames into overlapping tiles and blends what the network says of them.

A frame is covered by a grid of tiles of the network's size. Along each axis the first tile starts
at the frame's edge, the last ends at the other, and the ones between stand evenly, at least the
asked overlap apart. All lie on the grid of the logits (multiples of the output stride), so logits
of neighbouring tiles fall on the same places and are summed there with weights that fall off like
a cosine towards a neighbour and add up to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError
from .frame_kernels import frame_kernel

if TYPE_CHECKING:
    from .frame import FloatArray


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Where the tiles of a frame lie, and how much each counts at every place.

    Attributes:
        frame_hw: Size of the frame in pixels.
        tile_hw: Size of a tile in pixels.
        stride: Pixels per logit along each axis.
        tops: First row of each row of tiles, in pixels.
        lefts: First column of each column of tiles, in pixels.
        row_weights: For each row of tiles (tile height / stride,) float32, all above zero.
        column_weights: For each column of tiles (tile width / stride,) float32, all above zero.
    """

    frame_hw: tuple[int, int]
    tile_hw: tuple[int, int]
    stride: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    row_weights: tuple[FloatArray, ...]
    column_weights: tuple[FloatArray, ...]

    @property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """(top, left) of each tile in pixels, row by row."""
        return tuple((top, left) for top in self.tops for left in self.lefts)

    @property
    def canvas_hw(self) -> tuple[int, int]:
        """Size in logits of all tiles together; it may reach beyond the frame."""
        return (
            (self.tops[-1] + self.tile_hw[0]) // self.stride,
            (self.lefts[-1] + self.tile_hw[1]) // self.stride,
        )


def plan_tiles(
    frame_hw: tuple[int, int], tile_hw: tuple[int, int], *, overlap: float, stride: int
) -> TilePlan:
    """Plans tiles that cover a frame.

    No tile reaches further beyond the frame than to the next multiple of ``stride``, except that
    a frame smaller than a tile gets one tile that starts at its corner.

    Args:
        frame_hw: Size of the frame in pixels.
        tile_hw: Size of a tile in pixels, a multiple of ``stride``.
        overlap: Share of a tile that neighbours have in common at least, in [0, 0.9].
        stride: Pixels per logit along each axis.

    Raises:
        InputError: A size is not positive or the overlap out of range.
    """
    if min(*frame_hw, *tile_hw, stride) < 1 or any(length % stride for length in tile_hw):
        raise InputError(
            f"cannot cut {frame_hw} pixels into tiles of {tile_hw} at stride {stride}; "
            "sizes must be positive and tiles multiples of the stride"
        )
    if not 0 <= overlap <= 0.9:
        raise InputError(f"overlap={overlap}; expected a share of the tile in 0..0.9")
    tops, lefts = (
        _starts(length, tile, overlap, stride)
        for length, tile in zip(frame_hw, tile_hw, strict=True)
    )
    return TilePlan(
        frame_hw=frame_hw,
        tile_hw=tile_hw,
        stride=stride,
        tops=tops,
        lefts=lefts,
        row_weights=_weights(tops, tile_hw[0], stride),
        column_weights=_weights(lefts, tile_hw[1], stride),
    )


def _starts(length: int, tile: int, overlap: float, stride: int) -> tuple[int, ...]:
    """Returns where tiles start along one axis, in pixels."""
    cells, tile_cells = -(-length // stride), tile // stride
    if cells <= tile_cells:
        return (0,)
    largest_step = max(1, int(tile_cells * (1 - overlap)))
    gaps = -(-(cells - tile_cells) // largest_step)
    return tuple(stride * (i * (cells - tile_cells) // gaps) for i in range(gaps + 1))


def _weights(starts: tuple[int, ...], tile: int, stride: int) -> tuple[FloatArray, ...]:
    """Returns each tile's weights along one axis; at every place they add up to one."""
    cells = tile // stride
    firsts = [start // stride for start in starts]
    tapers = []
    for i, first in enumerate(firsts):
        before = firsts[i - 1] + cells - first if i else 0
        after = first + cells - firsts[i + 1] if i + 1 < len(firsts) else 0
        tapers.append(_ramp(cells, before) * _ramp(cells, after)[::-1])
    total = np.zeros(firsts[-1] + cells)
    for first, taper in zip(firsts, tapers, strict=True):
        total[first : first + cells] += taper
    return tuple(
        (taper / total[first : first + cells]).astype(np.float32)
        for first, taper in zip(firsts, tapers, strict=True)
    )


def _ramp(cells: int, rising: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Returns weights that rise over the first cells as sin^2 does, and are one from there on."""
    weights = np.ones(cells)
    weights[:rising] = np.sin(np.pi / 2 * (np.arange(rising) + 0.5) / max(rising, 1)) ** 2
    return weights


class Blender:
    """Sums the weighted logits of the tiles of one frame.

    Attributes:
        canvas: (K, h, w) float32 blended logits, complete once all tiles have been added.

    Example:
        >>> plan = plan_tiles((8, 12), (8, 8), overlap=0.5, stride=4)
        >>> blender = Blender(plan, num_classes=2)
        >>> for index in range(len(plan.corners)):
        ...     blender.add(index, np.ones((2, 2, 2), np.float32))
        >>> blender.canvas.shape, float(blender.canvas.min())
        ((2, 2, 3), 1.0)
    """

    def __init__(self, plan: TilePlan, *, num_classes: int) -> None:
        self._plan = plan
        self._kernel = frame_kernel()
        self.canvas: FloatArray = np.zeros((num_classes, *plan.canvas_hw), np.float32)

    def add(self, index: int, logits: FloatArray) -> None:
        """Adds one tile.

        Args:
            index: Place of the tile in ``plan.corners``.
            logits: (K, tile height / stride, tile width / stride) float32.
        """
        plan = self._plan
        row, column = divmod(index, len(plan.lefts))
        top, left = plan.tops[row] // plan.stride, plan.lefts[column] // plan.stride
        weights = plan.row_weights[row], plan.column_weights[column]
        if self._kernel is not None:
            tile = np.ascontiguousarray(logits, np.float32)
            self._kernel.add_tile(tile, self.canvas, (top, left), weights)
            return
        height, width = logits.shape[1:]
        self.canvas[:, top : top + height, left : left + width] += logits * np.outer(*weights)
