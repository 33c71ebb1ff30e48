"""Losses of the edge head, which learns where classes meet."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
