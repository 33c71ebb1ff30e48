"""What is minimised: cross-entropy, Dice, an edge loss and an auxiliary cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .config import LossConfig
    from .models import NetworkOutput


def class_weights(shares: NDArray[Any]) -> Tensor:
    """Returns the weights 1 / ln(1.02 + f) of ENet (arXiv:1606.02147), scaled to a mean of 1.

    Args:
        shares: (K,) share f of each class in the labelled pixels.
    """
    weights = 1 / torch.log(1.02 + torch.as_tensor(shares, dtype=torch.float32))
    return weights / weights.mean()


class SegmentationLoss:
    """The whole training loss of a network output against a mask.

    Args:
        weights: (K,) class weights of the cross-entropy.
        ignore_index: Mask value that counts nowhere.
        config: Weights of the parts.
    """

    def __init__(self, weights: Tensor, *, ignore_index: int, config: LossConfig) -> None:
        self._weights = weights
        self._ignore_index = ignore_index
        self._config = config

    def __call__(
        self,
        output: NetworkOutput,
        masks: Tensor,
        teacher_logits: Tensor | None = None,
        heights: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss.

        Args:
            output: Of a network in training mode.
            masks: (N, H, W) int64 class ids or the ignore value.
            teacher_logits: (N, K, h, w) scores of a teacher at any stride, or None.
            heights: (N, H, W) metres, not a number where unknown, or None.

        Returns:
            Scalar.
        """
        config = self._config
        logits = F.interpolate(
            output.logits.float(), masks.shape[-2:], mode="bilinear", align_corners=False
        )
        loss = config.labels * self._cross_entropy(logits, masks)
        loss = loss + config.dice * dice_loss(logits, masks, ignore_index=self._ignore_index)
        coarse_masks = masks[:, 2::4, 2::4]
        coarse_logits = F.interpolate(
            output.coarse_logits.float(),
            coarse_masks.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )
        loss = loss + config.coarse * self._cross_entropy(coarse_logits, coarse_masks)
        loss = loss + config.edge * edge_loss(
            output.edge_logits.float(), masks, ignore_index=self._ignore_index
        )
        if heights is not None and output.heights is not None:
            loss = loss + config.height * height_loss(output.heights.float(), heights)
        if teacher_logits is not None:
            teacher = F.interpolate(
                teacher_logits.float(),
                output.logits.shape[-2:],
                mode="bilinear",
                align_corners=False,
            )
            loss = loss + config.distill * distillation_loss(output.logits.float(), teacher)
            loss = loss + config.match * F.mse_loss(output.logits.float(), teacher)
        return loss

    def _cross_entropy(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Class-weighted mean; 0 instead of not-a-number where every pixel is ignored."""
        if bool((masks == self._ignore_index).all()):
            return logits.sum() * 0
        return F.cross_entropy(
            logits,
            masks,
            self._weights,
            ignore_index=self._ignore_index,
            label_smoothing=self._config.label_smoothing,
        )


def dice_loss(logits: Tensor, masks: Tensor, *, ignore_index: int) -> Tensor:
    """One minus the mean soft Dice over the classes that occur in the batch.

    ``Dice_k = 2 sum p_k y_k / (sum p_k + sum y_k)``, sums over the labelled pixels of the batch.

    Args:
        logits: (N, K, H, W).
        masks: (N, H, W) int64.
        ignore_index: Mask value that counts nowhere.
    """
    labelled = (masks != ignore_index).unsqueeze(1)
    probabilities = logits.softmax(1) * labelled
    truth = F.one_hot(masks.clamp(0, logits.shape[1] - 1), logits.shape[1]).movedim(-1, 1)
    truth = truth * labelled
    overlap = (probabilities * truth).sum((0, 2, 3))
    totals = probabilities.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    scores = 2 * overlap / totals.clamp_min(1)
    return 1 - scores[present].mean() if bool(present.any()) else logits.sum() * 0


def edge_loss(edge_logits: Tensor, masks: Tensor, *, ignore_index: int) -> Tensor:
    """Balanced cross-entropy plus Dice of the edge head against the label's boundaries.

    A cell of the head is an edge where a label boundary runs within one pixel of it; cells with
    ignored pixels count nowhere.

    Args:
        edge_logits: (N, 1, h, w).
        masks: (N, H, W) int64, H = 4 h.
        ignore_index: Mask value that counts nowhere.
    """
    boundary = torch.zeros_like(masks, dtype=torch.float32)
    boundary[:, :, :-1] += (masks[:, :, :-1] != masks[:, :, 1:]).float()
    boundary[:, :-1] += (masks[:, :-1] != masks[:, 1:]).float()
    size = edge_logits.shape[-2:]
    near = F.max_pool2d(boundary.clamp_max(1).unsqueeze(1), 3, 1, 1)
    truth = F.adaptive_max_pool2d(near, size)
    ignored = (masks == ignore_index).float().unsqueeze(1)
    valid = 1 - F.adaptive_max_pool2d(F.max_pool2d(ignored, 3, 1, 1), size)
    share = (truth * valid).sum() / valid.sum().clamp_min(1)
    weights = valid * torch.where(truth > 0, 1 - share, share)
    entropy = F.binary_cross_entropy_with_logits(edge_logits, truth, reduction="none")
    balanced = (entropy * weights).sum() / weights.sum().clamp_min(1)
    probabilities = edge_logits.sigmoid() * valid
    overlap = (probabilities * truth).sum()
    dice = 1 - (2 * overlap + 1) / (probabilities.sum() + (truth * valid).sum() + 1)
    return balanced + dice


def height_loss(predicted: Tensor, heights: Tensor) -> Tensor:
    """Mean absolute error in metres over the cells whose heights are known in every pixel.

    Args:
        predicted: (N, 1, h, w).
        heights: (N, H, W) metres, not a number where unknown; H = 4 h.
    """
    cell = heights.shape[-1] // predicted.shape[-1]
    truth = F.avg_pool2d(heights.unsqueeze(1), cell)
    known = truth.isfinite()
    error = (predicted - truth.nan_to_num()).abs() * known
    return error.sum() / known.sum().clamp_min(1)


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, *, temperature: float = 2.0
) -> Tensor:
    """Kullback-Leibler divergence from softened teacher scores, times T^2 (arXiv:1503.02531)."""
    student = F.log_softmax(logits / temperature, 1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, 1)
    pixels = logits.shape[0] * logits.shape[2] * logits.shape[3]
    divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return divergence * temperature**2 / pixels
