"""SegFormer (arXiv:2105.15203): a transformer of four sizes, and a head of pointwise layers.

Nothing in it depends on the size of the image: positions are learnt from the borders of 3x3
convolutions. Maps stay (N, C, H, W); linear layers are pointwise convolutions, which become
integers in an INT8 file, while norms and attention stay in floating point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..model_config import Encoder, ModelConfig
from .attention import attend
from .blocks import conv_bn, resized
from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class SegFormerConfig(ModelConfig):
    """The shape of a SegFormer; four numbers each, for the strides 4, 8, 16, 32.

    Attributes:
        widths: Channels.
        heads: Of the attention.
        reductions: Places along each axis that one key stands for.
        blocks: Transformer blocks.
        decoder_width: Channels of the head.
    """

    output_stride: ClassVar[int] = 4
    encoder: Encoder = "own"
    widths: tuple[int, int, int, int] = (32, 64, 160, 256)
    heads: tuple[int, int, int, int] = (1, 2, 5, 8)
    reductions: tuple[int, int, int, int] = (8, 4, 2, 1)
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    decoder_width: int = 256


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each place."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class EfficientAttention(nn.Module):
    """Multi-head self-attention whose keys and values stand for squares of R x R places.

    Args:
        channels: C, a multiple of ``heads``.
        heads: Each with C / heads channels.
        reduction: R; height and width of maps must be multiples of it.
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.channels, self.heads = channels, heads
        self.scale = (channels // heads) ** -0.5
        self.query = nn.Conv2d(channels, channels, 1)
        self.reduce = (
            nn.Sequential(
                nn.Conv2d(channels, channels, reduction, reduction), ChannelNorm(channels)
            )
            if reduction > 1
            else nn.Identity()
        )
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        fewer = self.reduce(x)
        queries = self.by_head(self.query(x)) * self.scale
        seen = attend(queries, self.by_head(self.key(fewer)), self.by_head(self.value(fewer)))
        y: Tensor = self.project(seen.reshape(x.shape))
        return y

    def by_head(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, heads, C / heads, H W)."""
        return torch.unflatten(x.flatten(2), 1, (self.heads, self.channels // self.heads))


class MixFFN(nn.Module):
    """``PW2(GELU(DW3x3(PW1(x))))``, four times as wide inside."""

    EXPANSION = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels * self.EXPANSION
        self.body = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner),
            nn.GELU(),
            nn.Conv2d(inner, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = self.body(x)
        return y


class TransformerBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + mix_ffn(norm(x))``."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            ChannelNorm(channels), EfficientAttention(channels, heads, reduction)
        )
        self.mix = nn.Sequential(ChannelNorm(channels), MixFFN(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        x = x + self.attention(x)
        y: Tensor = x + self.mix(x)
        return y


class MixTransformer(nn.Module):
    """Four stages of transformer blocks, each behind a convolution whose patches overlap."""

    def __init__(self, config: SegFormerConfig) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        previous = config.encoder_bands
        for width, heads, reduction, blocks in zip(
            config.widths, config.heads, config.reductions, config.blocks, strict=True
        ):
            is_first = not stages
            kernel, stride = (7, 4) if is_first else (3, 2)
            stages.append(
                nn.Sequential(
                    nn.Conv2d(previous, width, kernel, stride, kernel // 2),
                    ChannelNorm(width),
                    *(TransformerBlock(width, heads, reduction) for _ in range(blocks)),
                    ChannelNorm(width),
                )
            )
            previous = width
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> maps at strides 4, 8, 16, 32."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class SegFormer(SegmentationNetwork):
    """The transformer, and its four maps brought to one width and size; logits at stride 4.

    Paths are not dropped in training, as the recipe is that of all networks.

    Example:
        >>> model = build_model("segformer-b0", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 16, 16])
    """

    def __init__(self, config: SegFormerConfig) -> None:
        width = config.decoder_width
        head = nn.Sequential(nn.Conv2d(width, config.num_classes, 1))
        levels = len(config.widths)
        super().__init__(
            config,
            MixTransformer(config),
            decoded_widths=(width,) * levels,
            head=head,
            edges_at=(3, 2, 1),
        )
        self.levels = nn.ModuleList(nn.Conv2d(c, width, 1) for c in reversed(config.widths))
        self.fuse = conv_bn(levels * width, width, act="relu")

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 4 to 32 -> maps of one width at strides 32, 16, 8, and all at 4."""
        levels = [level(x) for level, x in zip(self.levels, reversed(maps), strict=True)]
        fused = self.fuse(torch.cat([resized(level, maps[0]) for level in levels], 1))
        return [*levels[:-1], fused]
