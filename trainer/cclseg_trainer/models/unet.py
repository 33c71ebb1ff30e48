"""U-Net (arXiv:1505.04597) on a modern encoder: the decoder that every comparison starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model_config import ModelConfig
from .blocks import conv_bn
from .encoders import build_encoder
from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig(ModelConfig):
    """The shape of a U-Net.

    Attributes:
        decoder_widths: Channels of the decoder at strides 16, 8, 4, 2, 1.
    """

    decoder_widths: tuple[int, ...] = (256, 128, 64, 32, 16)


class DoubleConv(nn.Module):
    """Doubles a deep map, joins a shallow one to it, and convolves both twice."""

    def __init__(self, deep_channels: int, shallow_channels: int, out_channels: int) -> None:
        super().__init__()
        joined = deep_channels + shallow_channels
        self.first = conv_bn(joined, out_channels, kernel=3, act="relu")
        self.second = conv_bn(out_channels, out_channels, kernel=3, act="relu")

    def forward(self, deep: Tensor, shallow: Tensor | None) -> Tensor:
        """(N, C_d, H, W) and (N, C_s, 2H, 2W) -> (N, C_out, 2H, 2W)."""
        x = F.interpolate(deep, scale_factor=2.0, mode="nearest")
        if shallow is not None:
            x = torch.cat([x, shallow], 1)
        y: Tensor = self.second(self.first(x))
        return y


class UNet(SegmentationNetwork):
    """Encoder, and a decoder that joins every map of it; logits at full size.

    Example:
        >>> model = build_model("unet-r18", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 64, 64])
    """

    def __init__(self, config: UNetConfig) -> None:
        encoder = build_encoder(config.encoder, config.encoder_bands)
        *shallow, deepest = encoder.widths
        widths = config.decoder_widths
        head = nn.Sequential(nn.Conv2d(widths[-1], config.num_classes, 3, padding=1))
        super().__init__(config, encoder, decoded_widths=widths, head=head)
        self.blocks = nn.ModuleList(
            DoubleConv(deep, skip, out)
            for deep, skip, out in zip(
                (deepest, *widths), (*reversed(shallow), 0), widths, strict=False
            )
        )

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 2 to 32 -> decoded maps at strides 16, 8, 4, 2, 1."""
        *shallow, deep = maps
        decoded = []
        for block, skip in zip(self.blocks, (*reversed(shallow), None), strict=True):
            deep = block(deep, skip)
            decoded.append(deep)
        return decoded
