"""UNetFormer (arXiv:2109.08417): a decoder whose blocks see their surroundings and their window.

Norms follow convolutions, where they fold, instead of standing in front of attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model_config import Encoder, ModelConfig
from .attention import attend
from .blocks import conv_bn
from .encoders import build_encoder
from .network import SegmentationNetwork

_WEIGHT_SUM_MARGIN = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetFormerConfig(ModelConfig):
    """The shape of a UNetFormer.

    Attributes:
        width: Channels of the decoder, a multiple of ``heads``.
        heads: Of the attention.
        window: Places along each side of a window.
    """

    output_stride: ClassVar[int] = 4
    encoder: Encoder = "lite0"
    width: int = 64
    heads: int = 8
    window: int = 8


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a bias for each difference of positions.

    A map whose size is no multiple of a window is continued by its border for that.

    Args:
        channels: C, a multiple of ``heads``.
        heads: Each with C / heads channels.
        window: Places along each side of a window.
    """

    offsets: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.by_head = (heads, channels // heads)
        self.scale = (channels // heads) ** -0.5
        self.projections = conv_bn(channels, 3 * channels)
        self.bias = nn.Parameter(0.02 * torch.randn(heads, (2 * window - 1) ** 2))
        self.register_buffer("offsets", _offsets(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        height, width = x.shape[-2:]
        sizes = (-1, self.window)
        x = F.pad(x, [0, -width % self.window, 0, -height % self.window], mode="replicate")
        grid = torch.unflatten(torch.unflatten(self.projections(x), 3, sizes), 2, sizes)
        windows = grid.permute(0, 2, 4, 1, 3, 5)  # (N, H / w, W / w, 3 C, w, w)
        parts = torch.unflatten(windows.flatten(4), 3, (3, *self.by_head))
        queries, keys, values = (parts[:, :, :, which] for which in range(3))
        # each (N, H / w, W / w, heads, C / heads, w w)
        seen = attend(queries * self.scale, keys, values, bias=self.bias[:, self.offsets])
        seen = torch.unflatten(seen.flatten(3, 4), 4, (self.window, self.window))
        y = seen.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return y[..., :height, :width]


class GlobalLocalAttention(nn.Module):
    """Attention inside windows, spread beyond them by means over lines, and convolutions beside it.

    Each place takes the mean of a column and of a row as long as a window: where windows meet, the
    lines reach from one into the other.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attention = WindowAttention(channels, heads, window)
        self.square = conv_bn(channels, channels, kernel=3)
        self.point = conv_bn(channels, channels)
        self.project = nn.Sequential(
            conv_bn(channels, channels, kernel=window - 1, groups=channels),
            conv_bn(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        local = self.square(x) + self.point(x)
        attended = self.attention(x)
        before, after = self.window // 2 - 1, self.window // 2
        tall = F.pad(attended, [0, 0, before, after], mode="replicate")
        wide = F.pad(attended, [before, after, 0, 0], mode="replicate")
        crossed = F.avg_pool2d(tall, (self.window, 1), 1) + F.avg_pool2d(wide, (1, self.window), 1)
        y: Tensor = self.project(crossed + local)
        return y


class GlobalLocalBlock(nn.Module):
    """``x + attention(x)``, then ``x + PW2(ReLU6(PW1(x)))``, four times as wide inside."""

    EXPANSION = 4

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        inner = channels * self.EXPANSION
        self.attention = GlobalLocalAttention(channels, heads, window)
        self.mix = nn.Sequential(conv_bn(channels, inner, act="relu6"), conv_bn(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        x = x + self.attention(x)
        y: Tensor = x + self.mix(x)
        return y


class WeightedFusion(nn.Module):
    """``conv3x3(a up(D) + (1 - a) W S)``: D twice enlarged, S the encoder's map, a learnt."""

    def __init__(self, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(skip_channels, channels, 1)
        self.shares = nn.Parameter(torch.ones(2))
        self.join = conv_bn(channels, channels, kernel=3, act="relu6")

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """(N, C, H, W) and (N, C_s, 2H, 2W) -> (N, C, 2H, 2W)."""
        shares = F.relu(self.shares)
        shares = shares / (shares.sum() + _WEIGHT_SUM_MARGIN)
        deep = F.interpolate(deep, scale_factor=2.0, mode="bilinear")
        y: Tensor = self.join(shares[0] * deep + shares[1] * self.enter(skip))
        return y


class FeatureRefinement(nn.Module):
    """Weighs places and channels of the finest map side by side, then adds what it was."""

    REDUCTION = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // self.REDUCTION
        self.places = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.channels = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.ReLU6(), nn.Conv2d(inner, channels, 1)
        )
        self.shortcut = conv_bn(channels, channels)
        self.project = nn.Sequential(
            conv_bn(channels, channels, kernel=3, groups=channels), conv_bn(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        by_place = self.places(x).sigmoid() * x
        by_channel = self.channels(x.mean((2, 3), keepdim=True)).sigmoid() * x
        return F.relu(self.project(by_place + by_channel) + self.shortcut(x))


class UNetFormer(SegmentationNetwork):
    """A convolutional encoder and a decoder of global-local attention; logits at stride 4.

    The paper's encoder is ResNet-18; ours is that of the networks it is compared with.

    Example:
        >>> model = build_model("unetformer-lite0", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 16, 16])
    """

    def __init__(self, config: UNetFormerConfig) -> None:
        encoder = build_encoder(config.encoder, config.encoder_bands)
        width = config.width
        head = nn.Sequential(
            conv_bn(width, width, kernel=3, act="relu6"), nn.Conv2d(width, config.num_classes, 1)
        )
        super().__init__(
            config, encoder, decoded_widths=(width,) * 4, head=head, edges_at=(3, 2, 1)
        )
        _, *skips, deepest = encoder.widths
        self.enter = conv_bn(deepest, width)
        self.blocks = nn.ModuleList(
            GlobalLocalBlock(width, config.heads, config.window) for _ in skips
        )
        self.fusions = nn.ModuleList(WeightedFusion(skip, width) for skip in reversed(skips))
        self.refine = FeatureRefinement(width)

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 2 to 32 -> decoded maps at strides 32, 16, 8, 4."""
        _, *skips, deepest = maps
        x = self.enter(deepest)
        decoded = []
        for block, fusion, skip in zip(self.blocks, self.fusions, reversed(skips), strict=True):
            x = block(x)
            decoded.append(x)
            x = fusion(x, skip)
        return [*decoded, self.refine(x)]


def _offsets(window: int) -> Tensor:
    """Numbers the difference of positions of each two places of a window, (w w, w w) int64."""
    steps = torch.arange(window)
    y, x = (axis.flatten() for axis in torch.meshgrid(steps, steps, indexing="ij"))
    down, right = y[:, None] - y[None, :], x[:, None] - x[None, :]
    return (down + window - 1) * (2 * window - 1) + right + window - 1
