"""Superpixels: an image cut into small regions of one colour that follow its edges.

SLIC (Achanta et al., PAMI 2012): k-means in colour and place together, where a pixel may only join
one of the nine clusters that began in its own cell of a regular grid and in the cells around. It is
written here, in numpy, and not taken from a library, because a mask must not depend on what else is
installed: ``cv2.ximgproc`` comes with one of OpenCV's four wheels and not with the one that the
runtime asks for, and scikit-image is much to install on a device for one function.

Regions are not made connected at the end, as SLIC's authors do: what is computed from them here
are means, which do not care.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .frame import FloatArray, Image

_ROUNDS = 4
# Farther away than any pixel: no cell lies there.
_NOWHERE = np.float32(1e9)


def superpixels(image: Image, *, side: int, compactness: float = 20.0) -> NDArray[np.intp]:
    """Cuts an image into superpixels.

    Args:
        image: (H, W, C) uint8, any number of bands in any order.
        side: Side of a cell of the grid in pixels: about that of a superpixel.
        compactness: Difference of colour (root mean square over the bands, in grey levels) that
            counts as much as a distance of one ``side``; the larger, the more regular they are.

    Returns:
        (H, W) ids in 0..ceil(H / side) * ceil(W / side) - 1; some may have lost all pixels.

    Example:
        >>> halves = np.zeros((8, 16, 3), np.uint8)
        >>> halves[:, 7:] = 200  # the edge lies one pixel beside that of the cells
        >>> superpixels(halves, side=8)[0].tolist()
        [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    """
    height, width, bands = image.shape
    rows, columns = -(-height // side), -(-width // side)
    missing = ((0, rows * side - height), (0, columns * side - width), (0, 0))
    features = _features(np.pad(image, missing, mode="edge"), side, compactness)
    blocks = features.reshape(bands + 2, rows, side, columns, side)
    # One row of cells after the other fits into the processor's cache.
    blocks = np.ascontiguousarray(blocks.transpose(1, 3, 0, 2, 4))
    blocks = blocks.reshape(rows, columns, bands + 2, side * side)
    planes = np.ascontiguousarray(features[:, :height, :width]).reshape(bands + 2, -1)
    centres = blocks.mean(axis=3)
    for _ in range(_ROUNDS):
        ids = _nearest(blocks, centres, side)[:height, :width]
        centres = _means(planes, ids.ravel(), centres)
    return ids


def _features(image: Image, side: int, compactness: float) -> FloatArray:
    """Returns (C + 2, H, W) float32: colours and places, in units that count alike."""
    height, width, bands = image.shape
    features = np.empty((bands + 2, height, width), np.float32)
    features[:bands] = image.transpose(2, 0, 1)
    features[:bands] /= compactness * bands**0.5
    features[bands] = np.arange(height)[:, None] / side
    features[bands + 1] = np.arange(width) / side
    return features


def _nearest(blocks: FloatArray, centres: FloatArray, side: int) -> NDArray[np.intp]:
    """Gives every pixel the nearest of the nine clusters around its cell, as (H, W) ids."""
    rows, columns, count, _ = blocks.shape
    around = np.full((rows + 2, columns + 2, count), _NOWHERE, np.float32)
    around[1:-1, 1:-1] = centres
    ids = np.empty((rows, side, columns, side), np.intp)
    places = [(down, across) for down in range(3) for across in range(3)]
    steps = np.array([(down - 1) * columns + across - 1 for down, across in places])
    for row in range(rows):
        nine = np.stack([around[row + d, a : a + columns] for d, a in places], axis=1)
        # Of |f - c|^2 the part that tells one centre from another; c relative to the cell's own,
        # so that no digits are lost where values are large.
        own = centres[row, :, None]
        nine = nine - own
        pixels = blocks[row] - own.transpose(0, 2, 1)
        distance = (nine**2).sum(axis=2)[:, :, None] - 2 * (nine @ pixels)
        chosen = steps[distance.argmin(axis=1)] + (row * columns + np.arange(columns))[:, None]
        ids[row] = chosen.reshape(columns, side, side).transpose(1, 0, 2)
    return ids.reshape(rows * side, columns * side)


def _means(planes: FloatArray, ids: NDArray[np.intp], before: FloatArray) -> FloatArray:
    """Returns the mean features of every cluster; one without pixels stays where it was."""
    clusters = before.shape[0] * before.shape[1]
    pixels = np.bincount(ids, minlength=clusters)
    sums = np.stack([np.bincount(ids, plane, clusters) for plane in planes], axis=1)
    means = sums / np.maximum(pixels, 1)[:, None]
    return (
        np.where(pixels[:, None] > 0, means, before.reshape(clusters, -1))
        .astype(np.float32)
        .reshape(before.shape)
    )
