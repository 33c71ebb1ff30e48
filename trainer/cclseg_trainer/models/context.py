"""Context blocks made of pooling and convolution: what surrounds a place, told to the place.

Each takes and gives (N, C, H, W). They stand on the deepest map, stride 32, and are added to it
by a scale that starts at 0 (:class:`~.blocks.ScaledResidual`). Attention is in :mod:`.attention`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import (
    CrissCrossAttention,
    DualAttention,
    ExpectationMaximisation,
    InterlacedAttention,
)
from .blocks import ScaledResidual, conv_bn, conv_of_means

if TYPE_CHECKING:
    from ..model_config import Activation, Context


def average_grid(x: Tensor, bins: int) -> Tensor:
    """Averages a map over a grid of ``bins`` x ``bins`` windows, fewer where it is smaller.

    The windows all have one size, that follows from the map's: ``kernel = H - (bins - 1) stride``
    with ``stride = floor(H / bins)``. ONNX has these; it lacks windows of changing size.

    Args:
        x: (N, C, H, W).
        bins: Windows along each axis.

    Returns:
        (N, C, min(bins, H), min(bins, W)).
    """
    sizes = x.shape[-2:]
    counts = [min(bins, size) for size in sizes]
    strides = [size // count for size, count in zip(sizes, counts, strict=True)]
    kernels = [
        size - (count - 1) * stride
        for size, count, stride in zip(sizes, counts, strides, strict=True)
    ]
    return F.avg_pool2d(x, kernels, strides)


class PyramidPooling(nn.Module):
    """Averages over grids of 1, 2, 3 and 6 windows, beside the map itself (arXiv:1612.01105).

    Args:
        channels: C.
        act: Activation.
        out_channels: None for C.
        kernel: Of the convolution over the joined maps; 3 in the paper.
    """

    BINS = (1, 2, 3, 6)

    def __init__(
        self,
        channels: int,
        act: Activation,
        out_channels: int | None = None,
        kernel: int = 1,
    ) -> None:
        super().__init__()
        inner = channels // len(self.BINS)
        joined = channels + inner * len(self.BINS)
        self.levels = nn.ModuleList(
            conv_of_means(channels, inner, act=act)
            if bins == 1
            else conv_bn(channels, inner, act=act)
            for bins in self.BINS
        )
        self.project = conv_bn(joined, out_channels or channels, kernel=kernel, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C_out, H, W)."""
        parts = [x]
        for bins, level in zip(self.BINS, self.levels, strict=True):
            pooled = level(average_grid(x, bins))
            parts.append(F.interpolate(pooled, x.shape[-2:], mode="bilinear"))
        y: Tensor = self.project(torch.cat(parts, 1))
        return y


class AtrousPyramid(nn.Module):
    """Parallel dilated convolutions and a global mean (ASPP, arXiv:1802.02611, separable form).

    The paper's rates 6, 12, 18 belong to stride 16 and crops of 513 pixels; for stride 32 and
    crops of half that size they are a quarter. Taps that lie outside of every crop never learn,
    and on whole tiles they speak up.

    Args:
        channels: C.
        act: Activation.
        rates: Dilations in places of the map.
        out_channels: None for C.
    """

    def __init__(
        self,
        channels: int,
        act: Activation,
        rates: tuple[int, ...] = (2, 3, 5),
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        out_channels = out_channels or channels
        inner = out_channels // 4
        self.same = conv_bn(channels, inner, act=act)
        self.mean = conv_of_means(channels, inner, act=act)
        self.atrous = nn.ModuleList(
            nn.Sequential(
                conv_bn(channels, channels, kernel=3, dilation=rate, groups=channels),
                conv_bn(channels, inner, act=act),
            )
            for rate in rates
        )
        self.project = conv_bn(inner * (len(rates) + 2), out_channels, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C_out, H, W)."""
        same = self.same(x)
        mean = self.mean(x.mean((2, 3), keepdim=True)).expand_as(same)
        y: Tensor = self.project(torch.cat([same, mean, *(a(x) for a in self.atrous)], 1))
        return y


class GlobalConvolution(nn.Module):
    """A dense k x k kernel as two factored ones (GCN, arXiv:1703.02719).

    ``y = W1xk Wkx1 x + Wkx1' W1xk' x``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 7) -> None:
        super().__init__()
        self.tall_first = nn.Sequential(
            _line(in_channels, out_channels, (kernel, 1)),
            _line(out_channels, out_channels, (1, kernel)),
        )
        self.wide_first = nn.Sequential(
            _line(in_channels, out_channels, (1, kernel)),
            _line(out_channels, out_channels, (kernel, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)."""
        y: Tensor = self.tall_first(x) + self.wide_first(x)
        return y


class LargeKernel(GlobalConvolution):
    """The factored kernels to C / 4 channels, then a pointwise convolution back to C."""

    def __init__(self, channels: int, act: Activation, kernel: int = 7) -> None:
        inner = channels // 4
        super().__init__(channels, inner, kernel)
        self.project = conv_bn(inner, channels, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = self.project(super().forward(x))
        return y


def _line(in_channels: int, out_channels: int, size: tuple[int, int]) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, size, padding=(size[0] // 2, size[1] // 2))


def build_context(kind: Context, channels: int, act: Activation) -> nn.Module:
    """Makes the block ``kind`` for maps of so many channels; it starts as the identity."""
    if kind == "none":
        return nn.Identity()
    kinds: dict[str, type[nn.Module]] = {
        "ppm": PyramidPooling,
        "aspp": AtrousPyramid,
        "gcn": LargeKernel,
        "danet": DualAttention,
        "ema": ExpectationMaximisation,
        "criss-cross": CrissCrossAttention,
        "interlaced": InterlacedAttention,
    }
    return ScaledResidual(channels, kinds[kind](channels, act))
