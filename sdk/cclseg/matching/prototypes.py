"""Reference mode: what a few crops have in common in a network's features, looked for in an image.

A prototype is the mean of a crop's features over its mask; a pixel's score is its largest cosine
with any prototype (as PANet, arXiv:1908.06391, without training). Features are what a network says
of every cell: here its logits, less their mean over the classes, which no probability depends on.

A vector of as many numbers as classes tells what the network was taught to tell, and mixtures of
it. Two kinds of roof that it calls by one name with one confidence are one to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, MissingDependencyError
from ..postprocess import enlarged
from .found import Found, Place
from .thresholds import Threshold, cut_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..frame import FloatArray, Image

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="finding regions") from error


def pixel_features(logits: FloatArray, *, stride: int, size_hw: tuple[int, int]) -> FloatArray:
    """Makes features of a frame's logits.

    Args:
        logits: (K, h, w) float32, as of :attr:`cclseg.Segmentation.logits`.
        stride: Pixels per logit along each axis.
        size_hw: Size of the frame in pixels; logits beyond it are of no pixels and are left out.

    Returns:
        (K, ceil(H / stride), ceil(W / stride)) float32 of zero mean over K.
    """
    rows, columns = (-(-length // stride) for length in size_hw)
    seen = logits[:, :rows, :columns]
    return np.asarray(seen - seen.mean(axis=0), np.float32)


def prototype_of(
    features: FloatArray, mask: NDArray[Any] | None = None, *, stride: int
) -> NDArray[np.float64]:
    """Averages features over the object.

    Args:
        features: (K, h, w) of a crop.
        mask: (H, W), not zero on the object; None for the whole crop. A cell counts by the share
            of the object in it.
        stride: Pixels per cell along each axis.

    Returns:
        (K,) float64.

    Raises:
        InputError: The mask does not fit or is empty, or the features cancel out.
    """
    rows, columns = features.shape[1:]
    weights = np.ones((rows, columns))
    if mask is not None:
        if tuple(-(-length // stride) for length in mask.shape) != (rows, columns):
            raise InputError(
                f"the mask is {mask.shape}; expected the size of the crop, of {rows} x {columns} "
                f"cells of {stride} pixels"
            )
        held = np.zeros((rows * stride, columns * stride))
        held[: mask.shape[0], : mask.shape[1]] = mask != 0
        weights = held.reshape(rows, stride, columns, stride).mean(axis=(1, 3))
    if not weights.any():
        raise InputError("the mask of a reference is empty; expected pixels other than 0")
    mean: NDArray[np.float64] = np.average(
        features.reshape(len(features), -1).astype(np.float64), axis=1, weights=weights.ravel()
    )
    if not np.linalg.norm(mean) > 0:
        raise InputError("the features of a reference cancel out; take another crop, or a mask")
    return mean


def find_alike(
    features: FloatArray,
    prototypes: Sequence[NDArray[np.float64]],
    *,
    stride: int,
    size_hw: tuple[int, int],
    threshold: Threshold = "otsu",
    min_area_px: int = 64,
) -> Found:
    """Finds the pixels whose features point where those of a reference do.

    Args:
        features: (K, h, w) of the image.
        prototypes: (K,) each; see :func:`prototype_of`.
        stride: Pixels per cell along each axis.
        size_hw: Size of the image in pixels.
        threshold: Least cosine, or "otsu" or "multi-otsu" over all cells.
        min_area_px: Smallest connected region that is a place; the mask holds smaller ones too.

    Returns:
        The regions as places, their scores the largest cosine in each.

    Raises:
        InputError: There is no prototype, or the threshold is none.
    """
    if not prototypes:
        raise InputError("there is no reference; give at least one crop")
    cosines = _cosines(features, np.stack(prototypes))
    cells = cosines.max(axis=0)
    cut = cut_at(threshold, cells)
    scores = enlarged(cells[None], stride=stride, size_hw=size_hw)[0]
    mask = (scores >= cut.value).astype(np.uint8)
    places = _regions(mask, scores, cosines.argmax(axis=0), stride, min_area_px)
    ranked = tuple(sorted(places, key=lambda place: -place.score))
    return Found(ranked, mask, scores, cut)


def _cosines(features: FloatArray, prototypes: NDArray[np.float64]) -> FloatArray:
    """Returns (n, h, w) cosines with each prototype; 0 where features are nought."""
    units = prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)
    lengths = np.linalg.norm(features, axis=0)
    products = np.tensordot(units.astype(np.float32), features, axes=1)
    cosines = np.zeros(products.shape, np.float32)
    np.divide(products, lengths, out=cosines, where=lengths > 0)
    return np.clip(cosines, -1, 1, out=cosines)


def _regions(
    mask: Image, scores: FloatArray, references: NDArray[np.intp], stride: int, min_area_px: int
) -> Iterator[Place]:
    """Yields the 4-connected regions of a mask, each like the reference of its best pixel."""
    _, labels, boxes, centroids = cv2.connectedComponentsWithStats(mask, connectivity=4)
    for label in range(1, len(boxes)):
        left, top, width, height, area = (int(value) for value in boxes[label])
        if area < min_area_px:
            continue
        window = slice(top, top + height), slice(left, left + width)
        own = np.where(labels[window] == label, scores[window], -np.inf)
        row, column = divmod(int(own.argmax()), width)
        x, y = centroids[label] + 0.5
        right, bottom = left + width, top + height
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
        nearest = int(references[(top + row) // stride, (left + column) // stride])
        yield Place(float(x), float(y), float(own.max()), nearest, corners)
