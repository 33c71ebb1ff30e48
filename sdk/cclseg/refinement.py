"""Refines a network's answer along the edges of the frame that it was given.

The energy and the inference are those of :mod:`cclseg.potential`; here they meet the frame: its
resolution, its size, and the pixels that are worth a look.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from .errors import InputError, MissingDependencyError
from .potential import Potential, PotentialParameters
from .preprocess import reduced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .frame import FloatArray, Image

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="refining masks") from error

Refine: TypeAlias = Literal["off", "fast", "full"]
"""How results are refined; see :class:`Refiner`."""

UNSURE_MARGIN = 0.5
"""``fast`` changes pixels whose two likeliest classes are no farther apart in probability."""

# Larger frames are refined in bands, so that only the scores grow with the frame.
_BAND_PIXELS = 1 << 20


class Refiner:
    """Refines the logits of one frame after another; threads may share it.

    Logits are enlarged by cubic interpolation. ``full`` then looks at every pixel of the frame;
    ``fast`` works at half its resolution, where the output stride is even, and looks only at
    pixels that the network is unsure of. Logits that are not finite say nothing: such pixels take
    after their surroundings.

    Args:
        mode: "fast" or "full".
        stride: Pixels per logit along each axis.
        parameters: Of the energy.

    Raises:
        InputError: Unknown mode.

    Example:
        >>> logits = np.random.default_rng(0).normal(size=(3, 12, 16)).astype(np.float32)
        >>> scores, stride = Refiner("full", stride=4).refined(frame, logits)  # doctest: +SKIP
        >>> scores.shape, stride  # doctest: +SKIP
        ((3, 48, 62), 1)
    """

    def __init__(
        self, mode: Refine, *, stride: int, parameters: PotentialParameters | None = None
    ) -> None:
        if mode not in ("fast", "full"):
            raise InputError(f"refine='{mode}'; expected 'fast' or 'full'")
        parameters = parameters or PotentialParameters()
        fast = mode == "fast"
        self._step = 2 if fast and stride % 2 == 0 else 1
        self._margin = UNSURE_MARGIN if fast else None
        self._enlargement = stride // self._step
        sides_px = tuple(max(2, side // self._step) for side in parameters.sides_px)
        self._parameters = replace(parameters, sides_px=sides_px)
        self._reach = 4 * max(sides_px, default=1)

    def refined(self, image: Image, logits: FloatArray) -> tuple[FloatArray, int]:
        """Refines the logits of a frame.

        Args:
            image: (H, W, C) uint8, any number of bands in any order.
            logits: (K, h, w) float32 with h * stride >= H and w * stride >= W; left as they are.

        Returns:
            (K, ceil(H / s), ceil(W / s)) float32 scores, and s, their pixels along each axis.
        """
        small = image if self._step == 1 else reduced(image, self._step)
        scores = self._enlarged(logits, small.shape)
        above = scores[:, :0]  # as they were before they were refined
        for seen, kept in _bands(small.shape, self._reach):
            before = np.concatenate([above, scores[:, kept.start : seen.stop]], axis=1)
            potential = Potential(small[seen], before, self._parameters, margin=self._margin)
            potential.descend()
            first, last = kept.start - seen.start, kept.stop - seen.start
            scores[:, kept] = potential.scores[:, first:last]
            above = before[:, max(0, last - self._reach) : last]
        return scores, self._step

    def _enlarged(self, logits: FloatArray, size: tuple[int, ...]) -> FloatArray:
        height, width = size[:2]
        usable = np.where(np.isfinite(logits).all(axis=0), logits, 0)
        size_wh = tuple(length * self._enlargement for length in logits.shape[:0:-1])
        result = np.empty((len(logits), height, width), np.float32)
        for plane, target in zip(usable, result, strict=True):
            large = cv2.resize(plane, size_wh, interpolation=cv2.INTER_CUBIC)
            target[:] = large[:height, :width]
        return result


def _bands(size: tuple[int, ...], reach: int) -> Iterator[tuple[slice, slice]]:
    """Cuts a frame into bands: which rows to look at, and which of them to keep.

    They begin at multiples of ``reach``, so at cells of the superpixels, and look so far beyond.
    """
    height, width = size[:2]
    rows = max(1, _BAND_PIXELS // width // reach) * reach
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        yield slice(max(0, top - reach), min(height, bottom + reach)), slice(top, bottom)
