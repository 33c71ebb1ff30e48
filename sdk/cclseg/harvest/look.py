"""What a frame looks like to a harvest: how unsure the network is of it, and what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MissingDependencyError
from ..postprocess import margins

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..frame import FloatArray, Frame, Image
    from ..result import Segmentation

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "cv2", extra="cpu", purpose="choosing frames to label"
    ) from error

_UNSURE_BELOW = 0.5

# Side of the grid, and weight, of each kind of feature. On a slow film of a settlement the colours
# of two frames are 6 times as different as those of neighbouring frames, classes and unsureness,
# which flicker, 1.3 times; with these weights it is 4 times.
_COLOUR, _CLASSES, _DOUBT = (8, 2.0), 0.5, (4, 0.25)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What a frame looks like.

    Attributes:
        score: Mean over the frame of 1 - margin where the margin is below one half, 0 elsewhere;
            0 to 1. (The mean over the unsure pixels alone would put a frame with one such pixel
            before one that is unsure everywhere.)
        unsure: Share of the frame where the margin is below one half.
        features: (D,) float32: colours and unsureness on a coarse grid, share of each class. Two
            frames are as different as their features are far apart.
    """

    score: float
    unsure: float
    features: NDArray[np.float32]


def look_at(frame: Frame, result: Segmentation) -> Look:
    """Looks at a frame and its result."""
    doubt = 1 - margins(result.logits)
    unsure = doubt > 1 - _UNSURE_BELOW
    doubt[~unsure] = 0
    features = [
        _coarse(frame.image, *_COLOUR) / np.float32(255),
        np.fromiter(result.fractions().values(), np.float32) * np.float32(_CLASSES),
        _coarse(doubt, *_DOUBT),
    ]
    return Look(float(doubt.mean()), float(unsure.mean()), np.concatenate(features))


def rivals(result: Segmentation) -> tuple[str, str] | None:
    """Returns the two classes between which the network wavers most often; None if it does not."""
    logits = result.logits
    unsure = logits[:, margins(logits) < _UNSURE_BELOW]
    if not unsure.size:
        return None
    pairs = np.sort(np.argsort(unsure, axis=0)[-2:], axis=0)
    codes = np.bincount(pairs[0] * len(logits) + pairs[1])
    one, other = divmod(int(codes.argmax()), len(logits))
    return result.class_names[one], result.class_names[other]


def _coarse(plane: Image | FloatArray, grid: int, weight: float) -> NDArray[np.float32]:
    """Returns the means of a grid's cells, so that their distance is a root of mean squares."""
    step = max(1, min(plane.shape[:2]) // (grid * 16))
    thin = np.ascontiguousarray(plane[::step, ::step], np.float32)
    cells = cv2.resize(thin, (grid, grid), interpolation=cv2.INTER_AREA)
    return np.asarray(cells.ravel() * np.float32(weight / np.sqrt(cells.size)))
