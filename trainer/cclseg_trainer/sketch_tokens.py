"""Sketch tokens: a small vocabulary of what contours between classes look like.

The idea is that of Lim, Zitnick and Dollár (Sketch Tokens, CVPR 2013): patches around drawn
contours are clustered, and to detect a contour is to tell which cluster runs through a place, or
that none does. This is our own implementation, with the contours of training masks in place of
drawings and a head of the network in place of a forest. The code that the authors published
mentions a pending patent and is not used.

The vocabulary is learnt from crops that the seed of a run draws, so it needs no file: a run that
is resumed, and each of several processes, learns the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from scipy.cluster.vq import kmeans, vq

from cclseg.errors import InputError

from .losses.tokens import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

STRIDE = 4
"""Pixels per cell of a token map along each axis."""

REACH = 17
"""How far a token sees, in pixels: patches have 35 x 35."""

_MARGIN = 20  # a multiple of STRIDE that is more than REACH
_RINGS = ((5.0, 1.7), (10.0, 3.3), (15.0, 5.0))  # radius, and standard deviation of the blur there
_ANGLES = 16
_PATCHES_PER_CROP = 100
_PATCHES_PER_TOKEN = 10
_ROUNDS = 5  # of k-means, each from another start


class Vocabulary:
    """Tokens, and which of them runs where.

    Args:
        centres: (T, D) float32 descriptor of each token.
        ignore_index: Mask value of unlabelled pixels.

    Example:
        >>> vocabulary = learn_vocabulary(masks, count=16, ignore_index=255, seed=1)
        >>> vocabulary.token_map(masks[0]).max() <= 16
        True
    """

    def __init__(self, centres: NDArray[np.float32], *, ignore_index: int) -> None:
        self._centres = centres
        self._ignore_index = ignore_index

    def __len__(self) -> int:
        """Returns the number of tokens."""
        return len(self._centres)

    def token_map(self, mask: NDArray[Any]) -> NDArray[np.int64]:
        """Tells which token runs through each cell of 4 x 4 pixels.

        Args:
            mask: (H, W) class ids or the ignore value; H and W are multiples of 4.

        Returns:
            (H / 4, W / 4): 0 background, 1..T token; unknown (-1) where an ignored pixel lies
            within one pixel of the cell, or in the patch around its contour.
        """
        ignored = (mask == self._ignore_index).astype(np.uint8)
        beside = cv2.dilate(ignored, np.ones((3, 3), np.uint8))
        tokens = np.where(_in_cells(beside).any(-1), UNKNOWN, 0).astype(np.int64)
        contours = _described_contours(mask, self._ignore_index)
        if len(contours.rows):
            nearest, _ = vq(contours.descriptors, self._centres)
            known = np.where(contours.is_whole, nearest + 1, UNKNOWN)
            tokens[contours.rows, contours.columns] = known
        return tokens


def learn_vocabulary(
    masks: Iterable[NDArray[Any]], *, count: int, ignore_index: int, seed: int
) -> Vocabulary:
    """Clusters the contours of masks by k-means.

    Args:
        masks: (H, W) class ids or the ignore value; H and W are multiples of 4.
        count: The number of tokens T; there are fewer where contours are more alike.
        ignore_index: Mask value of unlabelled pixels.
        seed: Of the patches drawn and of the clusters' first centres.

    Raises:
        InputError: The masks show too few contours.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for mask in masks:
        contours = _described_contours(mask, ignore_index)
        whole = contours.descriptors[contours.is_whole]
        drawn.append(rng.permutation(whole)[:_PATCHES_PER_CROP])
    patches = np.concatenate(drawn)
    if len(patches) < _PATCHES_PER_TOKEN * count:
        raise InputError(
            f"the training crops show {len(patches)} places where classes meet with labels all "
            f"around; expected at least {_PATCHES_PER_TOKEN * count} to learn {count} tokens from: "
            "label whole areas, or train without --tokens"
        )
    centres, _ = kmeans(patches, count, iter=_ROUNDS, seed=rng)
    return Vocabulary(centres, ignore_index=ignore_index)


class _Contours(NamedTuple):
    """Where contours run, one entry for each cell of 4 x 4 pixels that has one.

    Attributes:
        rows: (M,) of the cells.
        columns: (M,) of the cells.
        descriptors: (M, D) float32 of the patches.
        is_whole: (M,) whether a patch has no ignored pixel.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    descriptors: NDArray[np.float32]
    is_whole: NDArray[np.bool_]


def _described_contours(mask: NDArray[Any], ignore_index: int) -> _Contours:
    """Finds the contours of a mask and describes the patch around each of them.

    The labels at the rim of the mask are thought to go on beyond it. The patch of a cell lies
    around that pixel of a contour which is nearest to the cell's middle.
    """
    padded = np.pad(mask, _MARGIN, mode="edge")
    contours = _contours(padded, ignore_index)
    cells = _in_cells(contours[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN])
    rows, columns = np.nonzero(cells.any(-1))
    dy, dx = np.divmod((cells[rows, columns] * _nearness()).argmax(-1), STRIDE)
    ys, xs = rows * STRIDE + dy + _MARGIN, columns * STRIDE + dx + _MARGIN
    ignored = (padded == ignore_index).astype(np.uint8)
    in_patch = cv2.dilate(ignored, np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8))
    return _Contours(rows, columns, _descriptors(contours, ys, xs), in_patch[ys, xs] == 0)


def _contours(mask: NDArray[Any], ignore_index: int) -> NDArray[np.bool_]:
    """(H, W) ids -> (H, W), true on both sides of where two classes meet."""
    contours = np.zeros(mask.shape, bool)
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        known = (mask[here] != ignore_index) & (mask[there] != ignore_index)
        meets = known & (mask[here] != mask[there])
        contours[here] |= meets
        contours[there] |= meets
    return contours


def _in_cells(pixels: NDArray[Any]) -> NDArray[Any]:
    """(H, W) -> (H / 4, W / 4, 16), the pixels of each cell."""
    height, width = pixels.shape[0] // STRIDE, pixels.shape[1] // STRIDE
    parted = pixels.reshape(height, STRIDE, width, STRIDE)
    cells: NDArray[Any] = parted.swapaxes(1, 2).reshape(height, width, STRIDE * STRIDE)
    return cells


def _nearness() -> NDArray[np.float64]:
    """(16,), the larger the nearer a pixel of a cell is to the cell's middle; all positive."""
    middle = (STRIDE - 1) / 2
    y, x = np.indices((STRIDE, STRIDE)).reshape(2, -1)
    nearness: NDArray[np.float64] = 1 / (1 + np.hypot(y - middle, x - middle))
    return nearness


def _descriptors(
    contours: NDArray[np.bool_], ys: NDArray[np.intp], xs: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Describes patches by how much contour there is on rings around their middle.

    Geometric blur (Berg and Malik, CVPR 2001): the further out, the more the contours are blurred,
    so that a token forgives what shifts and bends. DAISY, which the authors used, also histograms
    gradients; on contours, which say where they run, that takes ten times as long.

    Args:
        contours: (H, W), true on both sides of a contour.
        ys: (M,) rows of the middles, at least 17 from the rim.
        xs: (M,) columns of the middles.

    Returns:
        (M, D); an entry is 1 where a straight contour runs through.
    """
    drawn = contours.astype(np.float32)
    angles = np.arange(_ANGLES) * (2 * math.pi / _ANGLES)
    rings = []
    for radius, sigma in _RINGS:
        blurred = cv2.GaussianBlur(drawn, (0, 0), sigma) * np.float32(_height_of_a_line(sigma))
        dy, dx = (np.rint(radius * f(angles)).astype(np.intp) for f in (np.sin, np.cos))
        rings.append(blurred[ys[:, None] + dy, xs[:, None] + dx])
    return np.concatenate(rings, axis=1)


def _height_of_a_line(sigma: float) -> float:
    """Returns what makes the ridge of a blurred line of two pixels one high."""
    return 1 / math.erf(1 / (sigma * math.sqrt(2)))
