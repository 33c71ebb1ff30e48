"""Making confidence honest: one temperature for all scores, chosen on validation data.

A network trained to certainty is too sure of itself. Dividing its scores by one number T changes no
decision, and the T with the least negative log-likelihood on validation data makes the confidence
tell how often a pixel is right (Guo et al., arXiv:1706.04599). It is folded into the convolution
that ends the head, so that it costs nothing and every export carries it.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from cclseg.frame import FloatArray, Mask

    from .checkpoint import Checkpoint

logger = logging.getLogger(__name__)

TEMPERATURES: NDArray[np.float64] = np.geomspace(0.5, 4.0, 49)
_HEAD_END = re.compile(r"(network\.)?head\.(\d+)\.(weight|bias)")  # the last one ends the head


def best_temperature(
    scored: Iterable[tuple[FloatArray, Mask]], *, stride: int, ignore_index: int
) -> float:
    """Returns the temperature under which the labels are likeliest.

    Args:
        scored: Logits (K, h, w) and mask (H, W) of each validation image.
        stride: Pixels of the mask per logit along each axis; the pixel at the middle counts.
        ignore_index: Mask value that counts nowhere.

    Returns:
        One of :data:`TEMPERATURES`; 1 where nothing is labelled.
    """
    likelihood = np.zeros(len(TEMPERATURES))
    for logits, mask in scored:
        label = mask[stride // 2 :: stride, stride // 2 :: stride]
        scores = logits[:, : label.shape[0], : label.shape[1]]
        labelled = label != ignore_index
        flat = scores[:, labelled] - scores[:, labelled].max(axis=0)  # (K, P)
        true = np.take_along_axis(flat, label[labelled][None].astype(np.intp), axis=0)[0]
        for place, temperature in enumerate(TEMPERATURES):
            evidence = np.log(np.exp(flat / temperature).sum(axis=0))
            likelihood[place] += float((true / temperature - evidence).sum())
    return float(TEMPERATURES[likelihood.argmax()]) if likelihood.any() else 1.0


def with_temperature(checkpoint: Checkpoint, temperature: float) -> Checkpoint:
    """Returns a checkpoint whose network divides its scores by a temperature."""
    ends = [name for name in checkpoint.weights if _HEAD_END.fullmatch(name)]
    last = max(int(_number(name)) for name in ends)
    scaled = {
        name: checkpoint.weights[name] / temperature for name in ends if _number(name) == str(last)
    }
    logger.info("temperature %.2f folded into %s", temperature, ", ".join(scaled))
    return dataclasses.replace(checkpoint, weights=checkpoint.weights | scaled)


def _number(name: str) -> str:
    found = _HEAD_END.fullmatch(name)
    assert found is not None
    return found[2]
