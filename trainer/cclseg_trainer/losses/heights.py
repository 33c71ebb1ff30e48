"""The loss of the height head, which learns metres above ground."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


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
