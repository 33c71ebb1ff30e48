"""The crops that are looked for, and the bank of templates that they become, turned and scaled.

Seen from above an object may head anywhere, so a crop is turned around its centre in even steps.
A turned rectangle does not fill its upright canvas: a mask says which pixels of it are the crop's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..frame import FloatArray
    from .similarity import BoolArray

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="turning crops") from error

# Below this share of the crop's own, a pixel of the turned one mixes in what lies beyond its edge.
_COVERED = 0.999
_LEAST_SIDE_PX = 3


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A crop that shows what is looked for.

    Attributes:
        crop: (h, w, C) of the image's type and bands.
        mask: (h, w), not zero on the object; None where the whole crop is the object.
        name: What messages call it.

    Raises:
        InputError: The crop is no such array, or the mask does not fit or is empty.
    """

    crop: NDArray[Any]
    mask: NDArray[Any] | None = None
    name: str = "the reference"

    def __post_init__(self) -> None:
        if self.crop.ndim != 3 or 0 in self.crop.shape:
            raise InputError(f"{self.name} is {self.crop.shape}; expected (h, w, C) with pixels")
        if self.mask is None:
            return
        if self.mask.shape != self.crop.shape[:2]:
            raise InputError(
                f"the mask of {self.name} is {self.mask.shape}; expected {self.crop.shape[:2]}, "
                "the size of the crop"
            )
        if not self.mask.any():
            raise InputError(f"the mask of {self.name} is empty; expected pixels other than 0")

    @property
    def valid(self) -> BoolArray:
        """(h, w) bool: the object's pixels."""
        if self.mask is None:
            return np.ones(self.crop.shape[:2], np.bool_)
        return np.asarray(self.mask != 0, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A crop as it is slid over the image.

    Attributes:
        pixels: (h, w, C) float32, the upright canvas.
        mask: (h, w) bool, the canvas's valid pixels.
        size_wh: Width and height of the scaled crop in pixels, before it was turned.
        reference: Index of the crop.
        angle_deg: How far it is turned, clockwise on the screen.
        scale: How far it is enlarged.
    """

    pixels: FloatArray
    mask: BoolArray
    size_wh: tuple[int, int]
    reference: int
    angle_deg: float
    scale: float


def build_bank(
    references: Sequence[Reference], *, angles: int, scales: Sequence[float]
) -> list[Template]:
    """Turns and scales the crops.

    Args:
        references: The crops.
        angles: Number of headings, evenly over the full turn; 1 leaves the crops as they are.
        scales: Sizes over that of the crop.

    Raises:
        InputError: No headings, no or impossible scales, or a scaled crop of less than 3 pixels.
    """
    check_steps(angles, scales)
    return list(_turned_and_scaled(references, angles, scales))


def check_steps(angles: int, scales: Sequence[float]) -> None:
    """Refuses headings and scales that make no bank."""
    if angles < 1:
        raise InputError(f"{angles} angles; expected at least 1, which is the crop as it is")
    if not scales or not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise InputError(
            f"the scales are {tuple(scales)}; expected positive numbers such as 0.9, 1"
        )


def _turned_and_scaled(
    references: Sequence[Reference], angles: int, scales: Sequence[float]
) -> Iterator[Template]:
    for index, reference in enumerate(references):
        for scale in scales:
            pixels, mask = _scaled(reference, scale)
            height, width = mask.shape
            for step in range(angles):
                angle_deg = 360 * step / angles
                turned, valid = _turned(pixels, mask, angle_deg) if step else (pixels, mask)
                yield Template(turned, valid, (width, height), index, angle_deg, scale)


def _scaled(reference: Reference, scale: float) -> tuple[FloatArray, BoolArray]:
    height, width = (round(length * scale) for length in reference.crop.shape[:2])
    if min(height, width) < _LEAST_SIDE_PX:
        raise InputError(
            f"{reference.name} at scale {scale:g} is {width} x {height} pixels; expected at least "
            f"{_LEAST_SIDE_PX} along each side: take a larger crop or scale"
        )
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    pixels = reference.crop.astype(np.float32)
    mask = reference.valid.astype(np.float32)
    if scale == 1:
        return pixels, reference.valid
    pixels = _by_band(pixels, lambda band: cv2.resize(band, (width, height), interpolation=how))
    return pixels, np.asarray(cv2.resize(mask, (width, height), interpolation=how) >= 0.5)


def _turned(pixels: FloatArray, mask: BoolArray, angle_deg: float) -> tuple[FloatArray, BoolArray]:
    """Turns a crop clockwise around its centre onto the smallest upright canvas that holds it."""
    height, width = mask.shape
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    across = math.ceil(width * abs(c) + height * abs(s) - 1e-6)
    down = math.ceil(width * abs(s) + height * abs(c) - 1e-6)
    back = np.array([[c, s, 0], [-s, c, 0]])  # from the canvas to the crop
    back[:, 2] = (
        np.subtract((width, height), 1) / 2 - back[:, :2] @ np.subtract((across, down), 1) / 2
    )

    def warped(plane: FloatArray, border: int) -> FloatArray:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        turned = cv2.warpAffine(plane, back, (across, down), flags=flags, borderMode=border)
        return np.asarray(turned, np.float32)

    covered = warped(np.ones(mask.shape, np.float32), cv2.BORDER_CONSTANT) >= _COVERED
    valid = warped(mask.astype(np.float32), cv2.BORDER_REPLICATE) >= 0.5
    turned = _by_band(pixels, lambda band: warped(band, cv2.BORDER_REPLICATE))
    return turned, covered & valid


def _by_band(pixels: FloatArray, change: Callable[[FloatArray], Any]) -> FloatArray:
    """Applies what OpenCV does to four bands at most to any number of them, one by one."""
    bands = (change(np.ascontiguousarray(band)) for band in np.moveaxis(pixels, 2, 0))
    return np.ascontiguousarray(np.stack(list(bands), axis=2), np.float32)
