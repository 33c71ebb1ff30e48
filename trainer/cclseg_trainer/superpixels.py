"""Superpixels of training crops, for the potential on unlabelled pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from skimage.segmentation import slic

from .bands import in_fours

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDES = (4, 8)
"""Rough side of a superpixel in cells of the logits, one scale each: 16 and 32 pixels."""

_COMPACTNESS = 0.1  # for values of 0..1; SLIC weighs colour against distance with it
_ROUNDS = 5


def superpixels(values: NDArray[np.float32], *, size_hw: tuple[int, int]) -> NDArray[np.int64]:
    """Cuts an image into superpixels of two scales by SLIC (Achanta et al., PAMI 2012).

    Args:
        values: (H, W, C) float32 in 0..1, any number of bands.
        size_hw: Height and width of the result, those of the logits.

    Returns:
        (2, h, w) int64 ids, from 0 on at each scale.
    """
    height, width = size_hw
    small = in_fours(
        values, lambda bands: cv2.resize(bands, (width, height), interpolation=cv2.INTER_AREA)
    )
    scales = [
        slic(
            small,
            n_segments=max(1, round(height * width / side**2)),
            compactness=_COMPACTNESS,
            max_num_iter=_ROUNDS,
            start_label=0,
            convert2lab=False,
            channel_axis=-1,
        )
        for side in SIDES
    ]
    return np.stack(scales).astype(np.int64)
