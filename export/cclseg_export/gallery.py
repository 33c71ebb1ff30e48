"""Pictures of where a file and its origin differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cclseg.dataset import Sample
    from cclseg.frame import Image, Mask
    from cclseg.spec import ModelSpec

    from .parity import Compared

_PANEL_PX = 300
_MOST_PICTURES = 5
_UNLABELLED_BGR = (128, 128, 128)

# Blue, red and violet are told apart by most colour-blind readers too.
BETTER_BGR, WORSE_BGR, OTHER_BGR = (200, 120, 30), (60, 60, 230), (190, 90, 150)


@dataclass(frozen=True, slots=True)
class GalleryRow:
    """Pictures of one image, shrunk."""

    stem: str
    differing: float
    panels: tuple[Image, ...]


class Gallery:
    """Collects pictures of the images on which a file differs most from its origin.

    Only the most telling images are held, shrunk, whatever the size of the split.

    Args:
        spec: Colours of the classes, and which bands are red, green and blue.
        candidate: Place of the file in question in :attr:`Compared.found`.
    """

    def __init__(self, spec: ModelSpec, *, candidate: int) -> None:
        self._spec = spec
        self._candidate = candidate
        self._rows: list[GalleryRow] = []

    @property
    def rows(self) -> tuple[GalleryRow, ...]:
        """The pictures, the image with most differing pixels first."""
        return tuple(self._rows)

    def add(self, compared: Compared) -> None:
        """Looks at one image and keeps its pictures if it differs more than others."""
        found = compared.found[self._candidate]
        differing = float(np.mean(found != compared.expected))
        if len(self._rows) == _MOST_PICTURES and differing <= self._rows[-1].differing:
            return
        panels = self._panels(compared.sample, compared.expected, found)
        self._rows.append(GalleryRow(compared.sample.stem, differing, panels))
        self._rows.sort(key=lambda row: -row.differing)
        del self._rows[_MOST_PICTURES:]

    def _panels(self, sample: Sample, expected: Mask, found: Mask) -> tuple[Image, ...]:
        image = _photograph(sample.image)
        return (
            _shrunk(image, cv2.INTER_AREA),
            *(
                _shrunk(self._coloured(mask), cv2.INTER_NEAREST)
                for mask in (sample.mask, expected, found)
            ),
            _shrunk(_differences(image, sample.mask, expected, found), cv2.INTER_AREA),
        )

    def _coloured(self, mask: Mask) -> Image:
        colours = np.full((256, 3), _UNLABELLED_BGR, np.uint8)
        colours[: self._spec.num_classes] = np.array(self._spec.palette, np.uint8)[:, ::-1]
        return np.asarray(colours[np.minimum(mask, 255)], np.uint8)


def _photograph(image: NDArray[Any]) -> Image:
    """Shows any number of bands: the first three as red, green and blue, or the first as grey."""
    bands = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1].repeat(3, axis=2)
    if bands.dtype != np.uint8:
        low, high = float(bands.min()), float(bands.max())
        bands = ((bands - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
    return np.ascontiguousarray(bands[:, :, ::-1])


def _differences(image: Image, label: Mask, expected: Mask, found: Mask) -> Image:
    """Dims the image to grey and paints the pixels where the two networks differ."""
    shown = np.repeat(image.mean(axis=2, keepdims=True) * 0.45 + 30, 3, axis=2)
    differs = expected != found
    for where, colour in (
        (differs, OTHER_BGR),
        (differs & (found == label), BETTER_BGR),
        (differs & (expected == label), WORSE_BGR),
    ):
        shown[where] = colour
    return shown.astype(np.uint8)


def _shrunk(image: Image, interpolation: int) -> Image:
    """Shrinks an image to the width of the sheet's columns."""
    scale = min(1.0, _PANEL_PX / image.shape[1])
    size_wh = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size_wh, interpolation=interpolation), np.uint8)
