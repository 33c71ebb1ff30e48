"""Pictures of where a file and its origin differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cclseg.panels import coloured, marked, photograph, shrunk

if TYPE_CHECKING:
    from cclseg.dataset import Sample
    from cclseg.frame import Image, Mask
    from cclseg.spec import ModelSpec

    from .parity import Compared

_PANEL_PX = 300
_MOST_PICTURES = 5

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
        image = photograph(sample.image)
        return (
            shrunk(image, _PANEL_PX),
            *(
                shrunk(coloured(mask, self._spec.palette), _PANEL_PX, classes=True)
                for mask in (sample.mask, expected, found)
            ),
            shrunk(_differences(image, sample.mask, expected, found), _PANEL_PX),
        )


def _differences(image: Image, label: Mask, expected: Mask, found: Mask) -> Image:
    """Dims the image to grey and paints the pixels where the two networks differ."""
    differs = expected != found
    marks = [
        (differs, OTHER_BGR),
        (differs & (found == label), BETTER_BGR),
        (differs & (expected == label), WORSE_BGR),
    ]
    return marked(image, marks)
