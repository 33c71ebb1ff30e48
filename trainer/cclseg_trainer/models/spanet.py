"""SPANet-lite, after Hou et al.: cascaded atrous convolutions and a pyramid of adaptive ones.

Its authors have released no code, and the abstract gives no widths: a hierarchical atrous spatial
pyramid (HASP) on the deepest map, spatially adaptive convolutions step by step in a feature
pyramid, and a loss of boundaries, which is our edge head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model_config import Encoder, ModelConfig
from .blocks import conv_bn
from .encoders import build_encoder
from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class SPANetConfig(ModelConfig):
    """The shape of a SPANet-lite.

    Attributes:
        width: Channels of the decoder.
        rates: Dilations of the cascade on the deepest map.
    """

    output_stride: ClassVar[int] = 4
    encoder: Encoder = "lite0"
    width: int = 64
    rates: tuple[int, ...] = (1, 2, 4, 8)


class AtrousCascade(nn.Module):
    """Dilated convolutions one behind the other; what each has seen is joined (HASP).

    Args:
        in_channels: C_in.
        channels: C of each step and of the result.
        rates: Dilations.
    """

    def __init__(self, in_channels: int, channels: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.enter = conv_bn(in_channels, channels, act="relu")
        self.steps = nn.ModuleList(
            conv_bn(channels, channels, kernel=3, dilation=rate, act="relu") for rate in rates
        )
        self.join = conv_bn(channels * (len(rates) + 1), channels, act="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C, H, W)."""
        seen = [self.enter(x)]
        for step in self.steps:
            seen.append(step(seen[-1]))
        y: Tensor = self.join(torch.cat(seen, 1))
        return y


class AdaptiveConvolution(nn.Module):
    """A convolution that each place scales for itself: ``y = relu(conv(x) sigmoid(gate(x)))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv_bn(channels, channels, kernel=3)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return F.relu(self.conv(x) * self.gate(x).sigmoid())


class SPANet(SegmentationNetwork):
    """Encoder, cascade, and a feature pyramid of adaptive convolutions; logits at stride 4.

    Example:
        >>> model = build_model("spanet-lite0", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 16, 16])
    """

    def __init__(self, config: SPANetConfig) -> None:
        encoder = build_encoder(config.encoder, config.encoder_bands)
        _, *shallow, deepest = encoder.widths
        width = config.width
        super().__init__(
            config,
            encoder,
            decoded_widths=(width,) * (len(shallow) + 1),
            head=nn.Sequential(nn.Conv2d(width, config.num_classes, 1)),
            edges_at=(3, 2, 1),
        )
        self.cascade = AtrousCascade(deepest, width, config.rates)
        self.laterals = nn.ModuleList(conv_bn(skip, width) for skip in reversed(shallow))
        self.adapt = nn.ModuleList(AdaptiveConvolution(width) for _ in shallow)

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 2 to 32 -> decoded maps at strides 32, 16, 8, 4."""
        _, *shallow, deepest = maps
        decoded = [self.cascade(deepest)]
        for lateral, adapt, skip in zip(self.laterals, self.adapt, reversed(shallow), strict=True):
            enlarged = F.interpolate(decoded[-1], scale_factor=2.0, mode="bilinear")
            decoded.append(adapt(enlarged + lateral(skip)))
        return decoded
