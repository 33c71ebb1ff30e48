"""What was found: places, a mask, and a picture of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..frame import FloatArray, Image
    from .thresholds import Cut

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="drawing") from error

_HALO_BGR = (20, 20, 20)
_LEAST_TAGGED_PX = 40
_SHIFT = 4
# By reference, bright on any ground; one after another they are far apart.
_COLOURS_BGR = ((60, 230, 255), (255, 160, 60), (120, 255, 90), (220, 90, 255), (255, 255, 90))


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One place where something was found.

    Points are (x, y) in pixels; (0, 0) is the upper left corner of the first pixel.

    Attributes:
        x: Of the centre.
        y: Of the centre.
        score: How alike it is there, the larger the better.
        reference: Index of the crop that it is like.
        polygon_xy: (4, 2) corners of the crop in its order: upper left, upper right, lower right,
            lower left, turned as it was found. For a region, those of the upright box around it.
        angle_deg: How far the crop is turned, clockwise on the screen; None for a region.
        scale: Size over that of the crop; None for a region.
    """

    x: float
    y: float
    score: float
    reference: int
    polygon_xy: NDArray[np.float64]
    angle_deg: float | None = None
    scale: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns what ``json`` writes, rounded to what the figures are worth."""
        return {
            "x": round(self.x, 2),
            "y": round(self.y, 2),
            "angle_deg": self.angle_deg,
            "scale": self.scale,
            "score": round(self.score, 4),
            "reference": self.reference,
            "polygon": np.round(self.polygon_xy, 2).tolist(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The places, best first, and what they were chosen from.

    Attributes:
        places: Where it was found.
        mask: (H, W) uint8, 1 where it was found and 0 elsewhere.
        scores: (H, W) float32, how alike the image is around each pixel; -inf where no crop fits
            into the image.
        cut: The threshold, and how well it tells scores apart.
    """

    places: tuple[Place, ...]
    mask: Image
    scores: FloatArray
    cut: Cut

    def to_json(self) -> dict[str, Any]:
        """Returns what ``json`` writes."""
        return {
            "threshold": self.cut.value,
            "separability": self.cut.separability,
            "pixels": int(np.count_nonzero(self.mask)),
            "places": [place.to_json() for place in self.places],
        }

    def overlay(self, photo: Image) -> Image:
        """Draws what was found over the image: the mask bright, boxes with their scores.

        The bar inside a box points to the crop's upper side. A colour stands for a reference.

        Args:
            photo: (H, W, 3) uint8, BGR, of the image's size.

        Returns:
            (H, W, 3) uint8, BGR.

        Raises:
            InputError: The photo is no such image.
        """
        if photo.dtype != np.uint8 or photo.shape != (*self.mask.shape, 3):
            raise InputError(
                f"cannot draw on an image of {photo.shape} {photo.dtype}; expected "
                f"{(*self.mask.shape, 3)} uint8 (BGR), the image that was searched"
            )
        drawn = np.where(self.mask[:, :, None] != 0, photo, cv2.convertScaleAbs(photo, alpha=0.6))
        pen = max(1, round(min(self.mask.shape) / 450))
        contours, _ = cv2.findContours(self.mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        if any(place.angle_deg is None for place in self.places):
            cv2.drawContours(drawn, contours, -1, _COLOURS_BGR[0], pen)
        for place in reversed(self.places):  # the best on top
            _draw(drawn, place, pen)
        return drawn


def painted(places: tuple[Place, ...], size_hw: tuple[int, int]) -> Image:
    """Fills the places' polygons with 1 in a (H, W) uint8 mask of 0."""
    mask = np.zeros(size_hw, np.uint8)
    for place in places:
        corners = place.polygon_xy
        across, down = corners[1] - corners[0], corners[3] - corners[0]
        across, down = across / np.linalg.norm(across), down / np.linalg.norm(down)
        # OpenCV fills the pixels under the outline too: it runs through the outermost ones.
        inset = np.array([across + down, down - across, -across - down, across - down]) / 2
        cv2.fillPoly(mask, [_drawable(corners + inset)], 1, shift=_SHIFT)
    return mask


def _drawable(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Turns points into OpenCV's: integers at pixel centres, with a binary fraction."""
    return np.round((points - 0.5) * (1 << _SHIFT)).astype(np.int32)


def _draw(image: Image, place: Place, pen: int) -> None:
    colour = _COLOURS_BGR[place.reference % len(_COLOURS_BGR)]
    corners = _drawable(place.polygon_xy)
    if place.angle_deg is None:  # its outline is drawn with the mask
        if np.ptp(place.polygon_xy, axis=0).min() >= _LEAST_TAGGED_PX * pen:
            _tag(image, f"{place.score:.2f}", np.array([(place.x, place.y)]), colour, pen)
        return
    centre, up = corners.mean(axis=0), corners[:2].mean(axis=0)
    bar = np.round([centre + 0.55 * (up - centre), up]).astype(np.int32)
    for shade, width in ((_HALO_BGR, 3 * pen), (colour, pen)):
        cv2.polylines(image, [corners], True, shade, width, cv2.LINE_AA, shift=_SHIFT)
        cv2.polylines(image, [bar], False, shade, width, cv2.LINE_AA, shift=_SHIFT)
    _tag(image, f"{place.score:.2f}", corners / (1 << _SHIFT), colour, pen)


def _tag(
    image: Image, text: str, points: NDArray[np.float64], colour: tuple[int, int, int], pen: int
) -> None:
    """Writes a text in a box above some points, or below them at the image's upper edge."""
    scale, pad = 0.36 + 0.07 * pen, pen + 2
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left = math.floor(points[:, 0].mean() - width / 2)
    left = min(max(left, pad), max(pad, image.shape[1] - width - pad))
    bottom = math.floor(points[:, 1].min()) - 2 * pad
    if bottom - height - pad < 0:
        bottom = math.ceil(points[:, 1].max()) + height + 2 * pad
    box = (left - pad, bottom - height - pad), (left + width + pad, bottom + pad)
    cv2.rectangle(image, *box, colour, cv2.FILLED)
    cv2.putText(
        image, text, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, scale, _HALO_BGR, 1, cv2.LINE_AA
    )
