"""Frames with results of which a stated share is unsure."""

import numpy as np
from networks import brightest_band_spec

from cclseg.frame import Frame
from cclseg.result import Segmentation


def item(index, *, unsure, tint=None, size_hw=(48, 64), name=None, **fields):
    """Returns a frame and its result.

    Args:
        index: Number of the frame; decides about its colour where no tint does.
        unsure: Share of the frame where two classes are nearly equal.
        tint: (3,) colour of the frame.
        size_hw: Its size.
        name: Its name.
        fields: Of the frame.
    """
    rng = np.random.default_rng(index)
    tint = rng.integers(0, 256, 3) if tint is None else np.asarray(tint)
    image = np.broadcast_to(tint.astype(np.uint8), (*size_hw, 3)).copy()
    cells = (3, -(-size_hw[0] // 4), -(-size_hw[1] // 4))
    logits = np.zeros(cells, np.float32)
    logits[1] = 9.0
    logits[2, :, : round(unsure * cells[2])] = 8.9
    mask = np.ones(size_hw, np.uint8)
    frame = Frame(image, index, name or f"frame_{index:06d}", **fields)
    return frame, Segmentation(mask, logits, brightest_band_spec())
