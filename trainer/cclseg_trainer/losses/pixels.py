"""Losses that add up over labelled pixels: cross-entropy and its kin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EASY = 0.7  # probability of the true class above which a pixel may be left out
_FEWEST_HARD = 0.2  # share of the labelled pixels that always counts


def class_weights(shares: NDArray[Any]) -> Tensor:
    """Returns the weights 1 / ln(1.02 + f) of ENet (arXiv:1606.02147), scaled to a mean of 1.

    Args:
        shares: (K,) share f of each class in the labelled pixels.
    """
    weights = 1 / torch.log(1.02 + torch.as_tensor(shares, dtype=torch.float32))
    return weights / weights.mean()


def cross_entropy(
    logits: Tensor, masks: Tensor, weights: Tensor, *, ignore_index: int, smoothing: float = 0.0
) -> Tensor:
    """Class-weighted mean cross-entropy; 0 instead of not-a-number where nothing is labelled.

    Args:
        logits: (N, K, H, W).
        masks: (N, H, W) int64 class ids or the ignore value.
        weights: (K,) class weights.
        ignore_index: Mask value that counts nowhere.
        smoothing: Label smoothing.
    """
    if bool((masks == ignore_index).all()):
        return logits.sum() * 0
    return F.cross_entropy(
        logits, masks, weights, ignore_index=ignore_index, label_smoothing=smoothing
    )


def focal_loss(
    logits: Tensor, masks: Tensor, weights: Tensor, *, ignore_index: int, gamma: float = 2.0
) -> Tensor:
    """Mean of ``-w_y (1 - p_y)^gamma log p_y`` (arXiv:1708.02002), weights in the mean too.

    Args:
        logits: (N, K, H, W).
        masks: (N, H, W) int64 class ids or the ignore value.
        weights: (K,) class weights w.
        ignore_index: Mask value that counts nowhere.
        gamma: How much pixels that are right already count less; 0 is the cross-entropy.
    """
    entropy, labels = _of_labelled(logits, masks, ignore_index)
    weight = weights[labels]
    focused = (-torch.expm1(-entropy)).clamp_min(0) ** gamma * entropy
    return (focused * weight).sum() / weight.sum().clamp_min(1e-6)


def hard_pixel_loss(logits: Tensor, masks: Tensor, weights: Tensor, *, ignore_index: int) -> Tensor:
    """Weighted cross-entropy of the hard pixels alone (OHEM, arXiv:1604.03540).

    Hard are pixels whose true class gets less than 0.7, and of all labelled ones at least the
    hardest fifth.

    Args:
        logits: (N, K, H, W).
        masks: (N, H, W) int64 class ids or the ignore value.
        weights: (K,) class weights.
        ignore_index: Mask value that counts nowhere.
    """
    entropy, labels = _of_labelled(logits, masks, ignore_index)
    if not entropy.numel():
        return logits.sum() * 0
    fewest = max(1, int(_FEWEST_HARD * entropy.numel()))
    hardest = entropy.detach().topk(fewest).values[-1]
    threshold = torch.minimum(hardest, -torch.log(torch.tensor(_EASY).to(hardest)))
    weight = weights[labels] * (entropy.detach() >= threshold)
    return (entropy * weight).sum() / weight.sum().clamp_min(1e-6)


def _of_labelled(logits: Tensor, masks: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Returns the cross-entropy and the class of every labelled pixel, both (P,)."""
    labelled = masks != ignore_index
    flat = logits.movedim(1, -1)[labelled]  # (P, K)
    return F.cross_entropy(flat, masks[labelled], reduction="none"), masks[labelled]
