"""Undoing, after training, what class weights did to the scores.

A cross-entropy with class weights w learns scores that favour rare classes by log w (logit
adjustment, arXiv:2007.07314). That helps learning and hurts precision. How much of it to take back
is chosen on validation data: ``logit_k <- logit_k - strength * log(w_k)``.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

logger = logging.getLogger(__name__)

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_HEAD_BIAS = re.compile(r"(network\.)?head\.\d+\.bias")  # of the convolution that ends the head


def choose_prior(
    checkpoint: Checkpoint,
    weights: Tensor,
    validate: Callable[[nn.Module], dict[str, Any]],
    *,
    strengths: Sequence[float] = STRENGTHS,
) -> Checkpoint:
    """Returns the checkpoint with the bias of its head shifted as validates best.

    Args:
        checkpoint: A trained network.
        weights: (K,) class weights of its cross-entropy.
        validate: Measures a network on validation data; returns a report with ``miou``.
        strengths: Shares of ``log(weights)`` to try.

    Returns:
        A checkpoint whose weights and metrics are those of the best strength.
    """
    candidates = [_shifted(checkpoint, weights, strength) for strength in strengths]
    measured = [
        dataclasses.replace(candidate, metrics=validate(candidate.build_trained()))
        for candidate in candidates
    ]
    for strength, candidate in zip(strengths, measured, strict=True):
        logger.info("prior strength %.2f: mIoU %.4f", strength, candidate.metrics["miou"] or 0)
    return max(measured, key=lambda candidate: candidate.metrics["miou"] or 0)


def _shifted(checkpoint: Checkpoint, weights: Tensor, strength: float) -> Checkpoint:
    name = next(name for name in checkpoint.weights if _HEAD_BIAS.fullmatch(name))
    bias = checkpoint.weights[name]
    shift = strength * torch.log(weights / weights.mean()).to(bias)
    return dataclasses.replace(checkpoint, weights=checkpoint.weights | {name: bias - shift})
