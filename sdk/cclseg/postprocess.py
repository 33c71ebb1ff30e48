"""From logits at the output stride to class ids and confidence at the frame's own size.

Logits are enlarged bilinearly with half-pixel centres, as ``torch.nn.functional.interpolate`` does
without ``align_corners``: output pixel y lies at (y + 0.5) / stride - 0.5 in logits, held inside
the outermost ones. :func:`enlarged` is the definition, in numpy; the functions behind it give the
same without ever holding all classes at full size. The compiled kernel interpolates only where
the classes of neighbouring logits differ, and only the classes that can win there; its class ids
are those of the definition, ties included. Where none was compiled OpenCV enlarges class by class
in bands that stay in the processor's cache; its sums are rounded otherwise, so where two logits
differ by nothing but rounding it may name the other class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError, MissingDependencyError
from .frame_kernels import frame_kernel

if TYPE_CHECKING:
    from .frame import FloatArray, Mask

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "cv2", extra="cpu", purpose="enlarging masks to the frame's size"
    ) from error

# Two such bands of float32 fit into a second-level cache of 1 MB, and from 98,304 pixels on OpenCV
# hands its work out to threads of its own.
_BAND_PIXELS = 96_000


def enlarged(logits: FloatArray, *, stride: int, size_hw: tuple[int, int]) -> FloatArray:
    """Enlarges logits to a frame's size.

    Args:
        logits: (K, h, w) float32.
        stride: Output pixels per logit along each axis.
        size_hw: Size of the frame, at most (h * stride, w * stride).

    Returns:
        (K, H, W) float32.
    """
    for axis, length in ((1, size_hw[0]), (2, size_hw[1])):
        place = (np.arange(length) + 0.5) / stride - 0.5
        place = np.clip(place, 0, logits.shape[axis] - 1)
        lower = np.floor(place).astype(np.intp)
        upper = np.minimum(lower + 1, logits.shape[axis] - 1)
        share = (place - lower).astype(np.float32)
        share = share[:, None] if axis == 1 else share
        logits = logits.take(lower, axis) * (1 - share) + logits.take(upper, axis) * share
    return logits


def regridded(
    logits: FloatArray, *, from_hw: tuple[int, int], to_hw: tuple[int, int], stride: int
) -> FloatArray:
    """Moves the logits of a scaled frame to the places of those of the frame itself.

    Args:
        logits: (K, h, w) float32, one per ``stride`` pixels of the scaled frame.
        from_hw: Size of the scaled frame in pixels.
        to_hw: Size of the frame in pixels.
        stride: Pixels per logit along each axis, in both.

    Returns:
        (K, ceil(H / stride), ceil(W / stride)) float32, interpolated bilinearly.
    """
    size_hw = tuple(-(-length // stride) for length in to_hw)
    down, across = (a / b for a, b in zip(from_hw, to_hw, strict=True))
    # The logit at place c covers the pixels around (c + 0.5) stride - 0.5, in either frame.
    places = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    result = np.empty((len(logits), *size_hw), np.float32)
    for plane, target in zip(logits, result, strict=True):
        cv2.warpAffine(
            plane, places, size_hw[::-1], target, flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
    return result


def class_ids(logits: FloatArray, *, stride: int, size_hw: tuple[int, int]) -> Mask:
    """Returns the class with the highest enlarged logit at every pixel, the first one at a tie.

    Args:
        logits: (K, h, w) float32.
        stride: Output pixels per logit along each axis.
        size_hw: Size of the frame, at most (h * stride, w * stride).

    Returns:
        (H, W) uint8, or uint16 for more than 255 classes.

    Raises:
        InputError: The frame is larger than its logits reach.
    """
    classes, rows, columns = logits.shape
    if size_hw[0] > rows * stride or size_hw[1] > columns * stride:
        raise InputError(
            f"logits of {rows} x {columns} at stride {stride} do not cover a frame of {size_hw}"
        )
    mask: Mask = np.empty(size_hw, np.uint8 if classes <= 255 else np.uint16)
    if (kernel := frame_kernel()) is not None:
        kernel.class_ids(np.ascontiguousarray(logits, np.float32), mask, stride=stride)
    else:
        _name_in_bands(logits, mask, stride)
    return mask


def _name_in_bands(logits: FloatArray, mask: Mask, stride: int) -> None:
    classes, rows, columns = logits.shape
    best, values, above, ids = (
        np.empty((_band_rows(columns, stride), columns * stride), dtype)
        for dtype in (np.float32, np.float32, np.bool_, mask.dtype)
    )
    for band in _bands(rows, columns, stride, len(mask)):
        top, mark = band.enlarge(logits[0], best), above[: band.height]
        band_ids = ids[: band.height]
        band_ids[:] = 0
        for class_id in range(1, classes):
            candidate = band.enlarge(logits[class_id], values)
            np.greater(candidate, top, out=mark)
            # Ids only rise from here on, so the maximum keeps the latest class that won.
            np.maximum(band_ids, np.multiply(mark, mask.dtype.type(class_id)), out=band_ids)
            np.maximum(top, candidate, out=top)
        mask[band.rows] = band_ids[:, : mask.shape[1]]


def confidence(logits: FloatArray, *, stride: int, size_hw: tuple[int, int]) -> FloatArray:
    """Returns the softmax probability of the winning class at every pixel.

    Args:
        logits: (K, h, w) float32.
        stride: Output pixels per logit along each axis.
        size_hw: Size of the frame, at most (h * stride, w * stride).

    Returns:
        (H, W) float32 in [1 / K, 1].
    """
    classes, rows, columns = logits.shape
    result = np.empty(size_hw, np.float32)
    buffer = np.empty((classes, _band_rows(columns, stride), columns * stride), np.float32)
    for band in _bands(rows, columns, stride, size_hw[0]):
        planes = [band.enlarge(*pair) for pair in zip(logits, buffer, strict=True)]
        values = np.stack(planes)[:, :, : size_hw[1]]
        values -= values.max(axis=0)
        np.divide(1.0, np.exp(values, out=values).sum(axis=0), out=result[band.rows])
    return result


def margins(logits: FloatArray) -> FloatArray:
    """Returns by how much the largest probability exceeds the second largest.

    Args:
        logits: (K, h, w) float32.

    Returns:
        (h, w) float32 in [0, 1]; 1 everywhere for a single class.
    """
    if len(logits) == 1:
        return np.ones_like(logits[0])
    first = np.maximum(logits[0], logits[1])
    second = np.minimum(logits[0], logits[1])
    for plane in logits[2:]:
        np.maximum(second, np.minimum(first, plane), out=second)
        np.maximum(first, plane, out=first)
    total = np.zeros_like(first)
    for plane in logits:
        total += np.exp(plane - first)
    return np.asarray((1 - np.exp(second - first)) / total)


@dataclass(frozen=True, slots=True)
class _Band:
    """Some rows of a frame, and the rows of logits that they need.

    Attributes:
        rows: The rows in the frame.
        cells: The rows of logits, one more at either end for the interpolation.
        crop: The frame's rows within the enlarged cells.
    """

    rows: slice
    cells: slice
    crop: slice

    @property
    def height(self) -> int:
        return int(self.rows.stop - self.rows.start)

    def enlarge(self, plane: FloatArray, buffer: FloatArray) -> FloatArray:
        """Enlarges one class of logits into ``buffer`` and returns this band's rows of it."""
        cells = plane[self.cells]
        width = buffer.shape[1]
        stride = width // cells.shape[1]
        target = buffer[: len(cells) * stride]
        cv2.resize(cells, (width, len(target)), dst=target, interpolation=cv2.INTER_LINEAR)
        return target[self.crop]


def _cells_per_band(columns: int, stride: int) -> int:
    return max(1, _BAND_PIXELS // (columns * stride * stride) - 2)  # it needs two more to read


def _band_rows(columns: int, stride: int) -> int:
    """Returns the rows of a buffer that holds any band with its extra cells."""
    return (_cells_per_band(columns, stride) + 2) * stride


def _bands(rows: int, columns: int, stride: int, height: int) -> Iterator[_Band]:
    """Cuts the rows of a frame into bands.

    Args:
        rows: Rows of logits.
        columns: Columns of logits.
        stride: Output pixels per logit along each axis.
        height: Rows of the frame.
    """
    step = _cells_per_band(columns, stride)
    for first in range(0, -(-height // stride), step):
        begin, end = max(0, first - 1), min(rows, first + step + 1)
        top, bottom = first * stride, min(height, (first + step) * stride)
        yield _Band(
            rows=slice(top, bottom),
            cells=slice(begin, end),
            crop=slice(top - begin * stride, bottom - begin * stride),
        )
