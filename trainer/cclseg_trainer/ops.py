"""The local cross-correlation as a differentiable torch function."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_EPS = 1e-6


def local_correlation(
    a: Tensor,
    b: Tensor,
    *,
    radius: int,
    dilation: int = 1,
    groups: int = 1,
    normalize: bool = False,
) -> Tensor:
    """Correlates each place of one map with a window of places of another.

    ``out[n, g K + (dy + R)(2R + 1) + (dx + R), y, x] = (1 / d) sum_{c in group g}
    a[n, c, y, x] b[n, c, y + dy dilation, x + dx dilation]`` with K = (2R + 1)^2 and d channels
    per group; b is zero outside the map. With ``normalize`` the sum is divided by
    ``max(|a_g| |b_g|, 1e-6)``, the L2 norms of the two group vectors, instead of by d.

    Args:
        a: (N, C, H, W) float.
        b: (N, C, H, W) float.
        radius: Window radius R >= 0.
        dilation: Step between places of the window, in pixels.
        groups: Number of channel groups; divides C.
        normalize: Cosine similarity instead of the mean of products.

    Returns:
        (N, groups * (2R + 1)^2, H, W).

    Raises:
        ValueError: Shapes differ, the radius is negative or groups do not divide C.
    """
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(
            f"got maps {tuple(a.shape)} and {tuple(b.shape)}; expected one (N, C, H, W)"
        )
    batch, channels, height, width = a.shape
    if radius < 0 or dilation < 1 or groups < 1 or channels % groups:
        raise ValueError(
            f"radius {radius}, dilation {dilation}, groups {groups} do not fit {channels} "
            "channels; expected radius >= 0, dilation >= 1 and groups that divide the channels"
        )
    depth = channels // groups
    a = a.reshape(batch * groups, depth, height, width)
    b = b.reshape(batch * groups, depth, height, width)
    if not normalize:
        a = a / depth
    reach = radius * dilation
    padded = F.pad(b, [reach] * 4) if reach else b
    lags = []
    for dy in range(0, 2 * reach + 1, dilation):
        for dx in range(0, 2 * reach + 1, dilation):
            shifted = padded[:, :, dy : dy + height, dx : dx + width]
            lags.append((a * shifted).sum(1))
    out = torch.stack(lags, 1)  # (N * G, K, H, W)
    if normalize:
        out = out / _norm_products(a, padded, out, reach=reach, dilation=dilation)
    return out.reshape(batch, -1, height, width)


def _norm_products(a: Tensor, padded: Tensor, like: Tensor, *, reach: int, dilation: int) -> Tensor:
    """Returns max(|a(p)| |b(p + lag)|, eps) for every lag, shaped as ``like``."""
    height, width = like.shape[-2:]
    norm_a = _safe_norm(a)
    norm_b = _safe_norm(padded)
    products = [
        norm_a * norm_b[:, dy : dy + height, dx : dx + width]
        for dy in range(0, 2 * reach + 1, dilation)
        for dx in range(0, 2 * reach + 1, dilation)
    ]
    return torch.stack(products, 1).clamp_min(_EPS)


def _safe_norm(x: Tensor) -> Tensor:
    """L2 norm over channels; the tiny summand makes its gradient at zero 0, not not-a-number."""
    return ((x * x).sum(1) + 1e-30).sqrt()
