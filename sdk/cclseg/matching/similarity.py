"""How alike a template and every window of an image are: ZNCC, SSD and SAD.

With I the image's window, T the template, and sums over the template's valid pixels p and over all
bands c (means are those of one band)::

    ncc = sum (I - mean I) (T - mean T) / sqrt(sum (I - mean I)^2 * sum (T - mean T)^2)
    ssd = sum (I - T)^2
    sad = sum |I - T|

NCC (Lewis, Fast Normalized Cross-Correlation, 1995) and SSD are made of correlations, which OpenCV
computes by FFT in float64, block by block, and of sums over windows. SAD is not: there each pixel
of the template costs a pass over the image, so its time grows with the template's area.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingDependencyError

if TYPE_CHECKING:
    from ..frame import FloatArray

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "cv2", extra="cpu", purpose="matching templates"
    ) from error

Metric: TypeAlias = Literal["ncc", "ssd", "sad"]

BoolArray: TypeAlias = NDArray[np.bool_]

# OpenCV rounds each sum to float32: a smaller share of a window's energy is rounding, no contrast.
_LEAST_CONTRAST = 1e-6


def similarity(
    image: NDArray[Any],
    template: FloatArray,
    mask: BoolArray,
    *,
    metric: Metric,
    value_range: float,
) -> FloatArray:
    """Scores every position of a template, larger for more alike and 1 for equal.

    Args:
        image: (H, W, C) uint8, uint16 or float32.
        template: (h, w, C) float32, not larger than the image.
        mask: (h, w) bool, the template's valid pixels.
        metric: "ncc" gives the coefficient itself; "ssd" one minus the root of the mean square,
            and "sad" one minus the mean of the differences, both as a share of ``value_range``.
        value_range: Largest difference that two values can have (255 for 8 bits).

    Returns:
        (H - h + 1, W - w + 1) float32, at most 1; element (y, x) has its upper left corner there.
    """
    values = float(np.count_nonzero(mask) * template.shape[2])
    if metric == "ncc":
        return ncc(image, template, mask)
    if metric == "ssd":
        distance = np.sqrt(ssd(image, template, mask) / values)
    else:
        distance = sad(image, template, mask) / values
    return np.asarray(1 - distance / value_range, np.float32)


def ncc(image: NDArray[Any], template: FloatArray, mask: BoolArray | None = None) -> FloatArray:
    """Computes the zero-mean normalised cross-correlation, blind to gain and offset of a band.

    A window of one colour correlates with nothing, and so does a template of one colour: 0.

    Args:
        image: (H, W, C) uint8, uint16 or float32.
        template: (h, w, C) float32, not larger than the image.
        mask: (h, w) bool, the template's valid pixels; None for all.

    Returns:
        (H - h + 1, W - w + 1) float32 in [-1, 1].
    """
    mask = _full(template) if mask is None else mask
    centred_image, centred = _centred(image, template, mask)
    products = _correlation(centred_image, centred)
    energy = _window_sums(_squares(centred_image), mask)
    contrast = energy.copy()
    count = np.count_nonzero(mask)
    for band in np.moveaxis(centred_image, 2, 0):
        contrast -= _window_sums(np.ascontiguousarray(band), mask) ** 2 / count
    contrast[contrast <= _LEAST_CONTRAST * energy] = 0
    norms = np.sqrt(contrast * np.square(centred, dtype=np.float64).sum())
    result = np.zeros(norms.shape, np.float32)
    np.divide(products, norms, out=result, where=norms > 0, casting="same_kind")
    return np.clip(result, -1, 1, out=result)


def ssd(image: NDArray[Any], template: FloatArray, mask: BoolArray | None = None) -> FloatArray:
    """Computes the sum of squared differences; arguments and shape as of :func:`ncc`."""
    mask = _full(template) if mask is None else mask
    centred_image, centred = _centred(image, template, mask)
    sums = _window_sums(_squares(centred_image), mask)
    sums -= 2 * _correlation(centred_image, centred)
    sums += np.square(centred, dtype=np.float64).sum()
    return np.maximum(sums, 0).astype(np.float32)


def sad(image: NDArray[Any], template: FloatArray, mask: BoolArray | None = None) -> FloatArray:
    """Computes the sum of absolute differences; arguments and shape as of :func:`ncc`.

    Values of the template are rounded to the image's own type.
    """
    mask = _full(template) if mask is None else mask
    height, width = (
        length - own + 1 for length, own in zip(image.shape[:2], mask.shape, strict=True)
    )
    sums = np.zeros((height, width), np.float32)
    difference = np.empty((height, width), image.dtype)
    for band, values in zip(np.moveaxis(image, 2, 0), np.moveaxis(template, 2, 0), strict=True):
        plane = np.ascontiguousarray(band)
        for top, left in np.argwhere(mask):
            window = plane[top : top + height, left : left + width]
            value = float(values[top, left])
            cv2.absdiff(window, value, difference)  # type: ignore[call-overload] # a scalar
            cv2.accumulate(difference, sums)
    return sums


def _full(template: FloatArray) -> BoolArray:
    return np.ones(template.shape[:2], np.bool_)


def _centred(
    image: NDArray[Any], template: FloatArray, mask: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Takes the template's mean off both, band by band, which keeps sums small and precise.

    Returns:
        The image, and the template with zeros where it is not valid; both float32.
    """
    means = template[mask].mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = np.where(mask[:, :, None], template - means, np.float32(0))
    return np.subtract(image, means, dtype=np.float32), centred


def _squares(image: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("hwc,hwc->hw", image, image), np.float32)


def _correlation(image: FloatArray, kernel: FloatArray) -> NDArray[np.float64]:
    return np.asarray(cv2.matchTemplate(image, kernel, cv2.TM_CCORR), np.float64)


def _window_sums(plane: FloatArray, mask: BoolArray) -> NDArray[np.float64]:
    """Sums a (H, W) plane over the mask's pixels at every position."""
    if not mask.all():
        return _correlation(plane, mask.astype(np.float32))
    height, width = mask.shape
    sums = cv2.boxFilter(plane, cv2.CV_64F, (width, height), normalize=False)
    rows, columns = plane.shape[0] - height + 1, plane.shape[1] - width + 1
    top, left = height // 2, width // 2
    return np.array(sums[top : top + rows, left : left + columns], np.float64)
