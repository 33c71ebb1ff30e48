"""Weighted means over windows: what local attention does once it knows its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


def gathered(weights: Tensor, values: Tensor, *, radius: int, dilation: int = 1) -> Tensor:
    """Sums the values around each place, each times its weight.

    ``out_g(p) = sum_delta weights_g(p, delta) values_g(p + a delta)`` with the lags delta of
    :func:`~cclseg_trainer.ops.local_correlation`, row by row, and the dilation a; values are zero
    outside the map. Slices and products alone, which every backend has.

    Args:
        weights: (N, G, (2R + 1)^2, H, W); softmax over axis 2 makes the sum a mean.
        values: (N, C, H, W), C a multiple of G.
        radius: Window radius R.
        dilation: Step between places of the window, in pixels.

    Returns:
        (N, C, H, W).
    """
    batch, groups, _, height, width = weights.shape
    channels = values.shape[1]
    grouped = values.reshape(batch, groups, channels // groups, height, width)
    padded = F.pad(grouped, [radius * dilation] * 4) if radius else grouped
    side = 2 * radius + 1
    out = None
    for lag in range(side * side):
        y, x = (step * dilation for step in divmod(lag, side))
        seen = padded[..., y : y + height, x : x + width]
        term = weights[:, :, lag].unsqueeze(2) * seen
        out = term if out is None else out + term
    assert out is not None
    return out.reshape(batch, channels, height, width)
