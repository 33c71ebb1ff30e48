"""Losses of how well regions overlap: surrogates of Dice and of the intersection over union."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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


def lovasz_loss(logits: Tensor, masks: Tensor, *, ignore_index: int) -> Tensor:
    """Lovász-Softmax (arXiv:1705.08790): the convex closure of one minus the Jaccard index.

    For each class that occurs in the batch, the errors ``|y - p|`` of all labelled pixels are
    sorted, largest first, and weighted by how much the Jaccard loss grows with each of them.

    Args:
        logits: (N, K, H, W).
        masks: (N, H, W) int64 class ids or the ignore value.
        ignore_index: Mask value that counts nowhere.

    Returns:
        Scalar in 0..1: the mean over the classes that occur, 0 where nothing is labelled.
    """
    labelled = masks != ignore_index
    probabilities = logits.movedim(1, -1)[labelled].softmax(1)  # (P, K)
    labels = masks[labelled]
    losses = []
    for class_id in labels.bincount().nonzero().flatten().tolist():
        truth = (labels == class_id).to(probabilities)
        errors, order = (truth - probabilities[:, class_id]).abs().sort(descending=True)
        losses.append(errors @ _jaccard_growth(truth[order]))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def _jaccard_growth(truth: Tensor) -> Tensor:
    """Returns by how much one minus the Jaccard index grows with each further wrong pixel.

    Args:
        truth: (P,) 1 for pixels of the class, in the order in which they become wrong.
    """
    total = truth.sum()
    intersection = total - truth.cumsum(0)
    union = total + (1 - truth).cumsum(0)
    jaccard = 1 - intersection / union
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
