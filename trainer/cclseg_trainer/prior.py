"""Undoing, after training, what class weights did to the scores.

A cross-entropy with class weights w learns scores that favour rare classes by log w (logit
adjustment, arXiv:2007.07314). That helps learning and hurts precision. How much of it to take back
is chosen on validation data: ``logit_k <- logit_k - strength * log(w_k)``. Scores are blended and
enlarged linearly, so that one run of the network tells the outcome of every strength.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cclseg.metrics import ConfusionMatrix
from cclseg.postprocess import class_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cclseg.dataset import Sample
    from cclseg.result import Segmentation
    from cclseg.spec import ModelSpec

    from .checkpoint import Checkpoint

logger = logging.getLogger(__name__)

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_HEAD_BIAS = re.compile(r"(network\.)?head\.\d+\.bias")  # of the convolution that ends the head


class PriorTrial:
    """Counts what a network's results would be under every strength.

    Args:
        weights: (K,) class weights of the network's cross-entropy.
        spec: The network.
        strengths: Shares of ``log(weights)`` to try.
    """

    def __init__(
        self, weights: Tensor, spec: ModelSpec, strengths: Sequence[float] = STRENGTHS
    ) -> None:
        self._spec, self._strengths = spec, strengths
        self._shifts = [s * torch.log(weights / weights.mean()).cpu() for s in strengths]
        self._matrices = [
            ConfusionMatrix(len(weights), ignore_index=spec.ignore_index) for _ in strengths
        ]

    def update(self, sample: Sample, result: Segmentation) -> None:
        """Adds one image of the validation data and what the network made of it."""
        for shift, matrix in zip(self._shifts, self._matrices, strict=True):
            shifted = result.logits - shift.numpy()[:, None, None]
            stride, size_hw = self._spec.output_stride, sample.mask.shape
            matrix.update(
                class_ids(shifted, stride=stride, size_hw=(size_hw[0], size_hw[1])), sample.mask
            )

    def best_shift(self) -> Tensor:
        """Returns (K,) what the strength that validates best takes from each class's score."""
        return self._shifts[self._best()]

    def applied_to(self, checkpoint: Checkpoint) -> Checkpoint:
        """Returns the checkpoint with the bias of its head shifted as validates best.

        Its metrics are those of the best strength.
        """
        for strength, matrix in zip(self._strengths, self._matrices, strict=True):
            logger.info("prior strength %.2f: mIoU %.4f", strength, matrix.miou)
        name = next(name for name in checkpoint.weights if _HEAD_BIAS.fullmatch(name))
        bias = checkpoint.weights[name]
        return dataclasses.replace(
            checkpoint,
            weights=checkpoint.weights | {name: bias - self.best_shift().to(bias)},
            metrics=self._matrices[self._best()].report(self._spec.class_names),
        )

    def _best(self) -> int:
        # Without a labelled pixel no strength is better than the first, which shifts least.
        scores = [matrix.report(self._spec.class_names)["miou"] or 0 for matrix in self._matrices]
        return scores.index(max(scores))
