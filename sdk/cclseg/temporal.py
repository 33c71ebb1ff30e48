"""Steadier output: what the network said of the last frame counts for this one where both agree.

The ground of consecutive frames is brought into line (:mod:`cclseg.registration`), the last result
is moved along, and each place of the new one takes over a share of it, the larger the more alike
the two frames look there. Likeness is the normalised local cross-correlation of their feature maps,
as :func:`cclseg.correlation.local_correlation` defines it at lag 0: cars, uncovered ground and
places where the registration is off look different, and there the new frame speaks for itself.

The idea is that of UVid-Net (Girisha et al., JSTARS 2021) and of similarity-weighted smoothing;
backends give logits and no inner feature maps, so the features here are the colours of the 3 x 3
cells around each place, relative to the frame's mean. The constants come from one virtual flight
(seed 1, once more with pictures moving over it); ``benchmarks/temporal.py`` reports others.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import MissingDependencyError
from .preprocess import reduced
from .registration import register

if TYPE_CHECKING:
    from .frame import FloatArray, Image
    from .registration import Homography

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "cv2", extra="cpu", purpose="smoothing results over time"
    ) from error

_log = logging.getLogger(__name__)

LARGEST_SHARE = 0.7
"""Share of the last result where both frames look the same; an older one fades with its powers."""

# Less alike than this, and the last result does not count at all. From 0.5 to 0.9 the flicker that
# is left grows by 15 %, and accuracy where things move on their own from one point lost to none.
_LEAST_SIMILARITY = 0.85
_WINDOW_CELLS = 3
# A constant feature of so many grey levels: differences far below it are noise, not structure.
_NOISE_LEVEL = 20.0
_REGISTRATION_PX = 320


@dataclass(frozen=True, slots=True)
class _Memory:
    """The last frame, as far as the next one needs it.

    Attributes:
        frame_hw: Its size in pixels.
        cells: (h, w, C) uint8, one per logit.
        thumbnail: (h', w') uint8 grey, for the registration.
        logits: (K, h, w) float32, blended.
    """

    frame_hw: tuple[int, ...]
    cells: Image
    thumbnail: Image
    logits: FloatArray


class TemporalSmoother:
    """Blends the results of one stream's frames, one after another.

    It starts anew at a scene cut, when the frames change size, and where the motion between two
    frames cannot be told. Memory holds one frame at the size of the logits. Not to be shared
    between streams or threads.

    Args:
        stride: Pixels per logit along each axis.

    Attributes:
        blended: Whether the last frame took something over from the one before.

    Example:
        >>> smoother = TemporalSmoother(stride=4)
        >>> logits = np.zeros((2, 30, 40), np.float32)
        >>> smoother.smooth(np.zeros((120, 160, 3), np.uint8), logits)
        >>> smoother.blended
        False
    """

    def __init__(self, *, stride: int) -> None:
        self._stride = stride
        self._last: _Memory | None = None
        self.blended = False

    def smooth(self, image: Image, logits: FloatArray) -> None:
        """Blends the last result into that of the next frame, in place.

        Probabilities are blended as their logarithms, which is what logits are: the share of each
        frame is the weight of a geometric mean.

        Args:
            image: (H, W, C) uint8, the frame.
            logits: (K, h, w) float32 with h * stride >= H and w * stride >= W. Kept until the next
                call, so nobody may change it in between.
        """
        stride = self._stride
        cells = reduced(image, stride)
        known = logits[:, : cells.shape[0], : cells.shape[1]]
        factor = -(-max(image.shape[:2]) // _REGISTRATION_PX)
        source, by = (cells, factor // stride) if factor % stride == 0 else (image, factor)
        now = _Memory(image.shape, cells, _grey(reduced(source, by)), known)
        motion = self._motion(now, factor)
        self.blended = motion is not None
        if self._last is not None and motion is not None:
            _blend(self._last, now, motion)
        # What is not a number would stay so for good.
        self._last = now if np.isfinite(known).all() else None

    def _motion(self, now: _Memory, factor: int) -> Homography | None:
        """Returns the way from this frame's cells to those of the last one."""
        last = self._last
        if last is None or last.frame_hw != now.frame_hw or len(last.logits) != len(now.logits):
            return None
        motion = register(last.thumbnail, now.thumbnail)
        if motion is None:
            _log.debug("the frames have no ground in common; smoothing starts anew")
            return None
        scale = factor / self._stride
        to_cells = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])
        return np.asarray(to_cells @ motion @ np.linalg.inv(to_cells))


def similarity(current: FloatArray, previous: FloatArray) -> FloatArray:
    """Compares two frames place by place.

    With the features f of the 3 x 3 cells around a place, a constant among them,
    s = f . g / (|f| |g|).

    Args:
        current: (h, w, C) float32 colours in 0..255.
        previous: (h, w, C) float32, brought into line with ``current``.

    Returns:
        (h, w) float32 in [-1, 1], 1 where they look the same.
    """
    cells = current.shape[0] * current.shape[1]
    # einsum sums over the last, short axis several times as fast as sum does.
    a, b = (frame - np.einsum("hwc->c", frame) / cells for frame in (current, previous))
    products, current_power, previous_power = (
        _window_means(np.einsum("hwc,hwc->hw", x, y)) + _NOISE_LEVEL**2
        for x, y in ((a, b), (a, a), (b, b))
    )
    return np.asarray(products / np.sqrt(current_power * previous_power), np.float32)


def _blend(last: _Memory, now: _Memory, motion: Homography) -> None:
    """Blends the last logits into the new ones."""
    height, width = now.cells.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    places = cv2.perspectiveTransform(grid.astype(np.float32), motion)
    x, y = np.ascontiguousarray(places.transpose(2, 0, 1), np.float32)
    seen = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)

    def moved(cells: FloatArray, interpolation: int) -> FloatArray:
        border = cv2.BORDER_REPLICATE
        return np.asarray(cv2.remap(cells, x, y, interpolation, borderMode=border), np.float32)

    before = moved(last.cells.astype(np.float32), cv2.INTER_LINEAR).reshape(now.cells.shape)
    alike = similarity(now.cells.astype(np.float32), before)
    room = 1 - _LEAST_SIMILARITY
    share = LARGEST_SHARE * np.clip((alike - _LEAST_SIMILARITY) / room, 0, 1) * seen
    for place, old in enumerate(last.logits):
        # Cubic, because a linear one blurs a little more with every frame.
        new = now.logits[place]
        new += share * (moved(old, cv2.INTER_CUBIC) - new)


def _window_means(plane: FloatArray) -> FloatArray:
    return np.asarray(cv2.blur(plane, (_WINDOW_CELLS, _WINDOW_CELLS)))


def _grey(image: Image) -> Image:
    """Returns the mean of the bands, (h, w) uint8."""
    bands = image.shape[2]
    return np.asarray(cv2.transform(image, np.full((1, bands), 1 / bands)))
