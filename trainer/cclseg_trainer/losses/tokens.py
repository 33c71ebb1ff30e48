"""The loss of the token head, which learns what kind of contour runs through a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = -1
"""Token of a cell that counts nowhere."""


def token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy in which a class weighs one minus its share of the known cells.

    What the edge heads have for two classes, for T + 1: the background and all tokens together
    weigh about alike, and a token that is rare in one batch does not outweigh the others.

    Args:
        logits: (N, T + 1, h, w), of any resolution.
        tokens: (N, H, W) int64: 0 background, 1..T token, or :data:`UNKNOWN`.

    Returns:
        Scalar; 0 where no cell is known.
    """
    logits = F.interpolate(logits, tokens.shape[-2:], mode="bilinear", align_corners=False)
    counts = tokens[tokens != UNKNOWN].bincount(minlength=logits.shape[1])
    weights = 1 - counts / counts.sum().clamp_min(1)
    total = F.cross_entropy(logits, tokens, weights, ignore_index=UNKNOWN, reduction="sum")
    return total / (weights * counts).sum().clamp_min(1)
