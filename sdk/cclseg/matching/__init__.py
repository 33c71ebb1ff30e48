"""Matching: where an image shows what a few reference crops show.

Two ways, both without training. :func:`find_places` slides the crops over the image, turned and
scaled (classical template matching); :func:`find_alike` compares features of a network at every
pixel with the mean of theirs over the crops (few-shot segmentation by prototypes).

    references ─► build_bank ─► similarity ─► threshold ─► non-maximum suppression ─► Found
    references ─► network ─► prototypes ─► cosine ─► threshold ─► regions ─► Found
"""

from __future__ import annotations

from .found import Found, Place
from .prototypes import find_alike, pixel_features, prototype_of
from .search import find_places
from .similarity import Metric, ncc, sad, ssd
from .templates import Reference
from .thresholds import Threshold, multi_otsu, otsu

__all__ = [
    "Found",
    "Metric",
    "Place",
    "Reference",
    "Threshold",
    "find_alike",
    "find_places",
    "multi_otsu",
    "ncc",
    "otsu",
    "pixel_features",
    "prototype_of",
    "sad",
    "ssd",
]
