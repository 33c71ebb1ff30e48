"""Losses of the edge heads, which learn where classes meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence


def edge_loss(levels: Sequence[Tensor], masks: Tensor, *, ignore_index: int) -> Tensor:
    """Balanced cross-entropy plus Dice of the edge heads against the label's boundaries.

    The mean over all levels. A cell of a head is an edge where a label boundary runs within one
    pixel of it; cells with ignored pixels count nowhere.

    Args:
        levels: (N, 1, h, w) scores, each of its own size.
        masks: (N, H, W) int64, H and W multiples of h and w.
        ignore_index: Mask value that counts nowhere.
    """
    near = _near_boundaries(masks)
    ignored = F.max_pool2d((masks == ignore_index).float().unsqueeze(1), 3, 1, 1)
    losses = [_level_loss(logits, near, ignored) for logits in levels]
    return torch.stack(losses).mean()


def _near_boundaries(masks: Tensor) -> Tensor:
    """(N, H, W) ids -> (N, 1, H, W), 1 where another class lies within one pixel."""
    boundary = torch.zeros_like(masks, dtype=torch.float32)
    boundary[:, :, :-1] += (masks[:, :, :-1] != masks[:, :, 1:]).float()
    boundary[:, :-1] += (masks[:, :-1] != masks[:, 1:]).float()
    return F.max_pool2d(boundary.clamp_max(1).unsqueeze(1), 3, 1, 1)


def _level_loss(edge_logits: Tensor, near: Tensor, ignored: Tensor) -> Tensor:
    size = edge_logits.shape[-2:]
    truth = F.adaptive_max_pool2d(near, size)
    valid = 1 - F.adaptive_max_pool2d(ignored, size)
    share = (truth * valid).sum() / valid.sum().clamp_min(1)
    weights = valid * torch.where(truth > 0, 1 - share, share)
    entropy = F.binary_cross_entropy_with_logits(edge_logits, truth, reduction="none")
    balanced = (entropy * weights).sum() / weights.sum().clamp_min(1)
    probabilities = edge_logits.sigmoid() * valid
    overlap = (probabilities * truth).sum()
    dice = 1 - (2 * overlap + 1) / (probabilities.sum() + (truth * valid).sum() + 1)
    return balanced + dice
