"""PSPNet, DANet, EMANet, CCNet and OCNet: a dilated encoder, one context block, a classifier.

All keep the encoder's maps at an eighth of the size, as their papers do, and differ in what tells
a place about its surroundings. The auxiliary head stands on the last map but one of the encoder.
Lighter than the papers: 128 channels where they have 512, on EfficientNet-Lite for a ResNet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..model_config import Encoder, ModelConfig
from .attention import (
    CrissCrossAttention,
    DualAttention,
    ExpectationMaximisation,
    InterlacedAttention,
)
from .blocks import ScaledResidual, conv_bn
from .context import PyramidPooling
from .encoders import build_encoder
from .network import SegmentationNetwork

DilatedContext = Literal["pspnet", "danet", "emanet", "ccnet", "ocnet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DilatedConfig(ModelConfig):
    """The shape of a dilated network.

    Attributes:
        context: The paper whose context block it has.
        width: Channels behind the encoder.
    """

    output_stride: ClassVar[int] = 8
    encoder: Encoder = "lite0"
    context: DilatedContext
    width: int = 128


class DilatedNet(SegmentationNetwork):
    """Dilated encoder, context block, classifier; logits at an eighth of the size.

    Example:
        >>> model = build_model("psp-lite0", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 8, 8])
    """

    def __init__(self, config: DilatedConfig) -> None:
        encoder = build_encoder(
            config.encoder, config.encoder_bands, output_stride=config.output_stride
        )
        *_, auxiliary, deepest = encoder.widths
        head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(config.width, config.num_classes, 1))
        super().__init__(
            config, encoder, decoded_widths=(auxiliary, config.width), head=head, edges_at=(1, 0)
        )
        self.context = _CONTEXTS[config.context](deepest, config.width)

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 2, 4, 8, 8, 8 -> the last but one, and the last with its context."""
        *_, auxiliary, deepest = maps
        return [auxiliary, self.context(deepest)]


class Residual(nn.Module):
    """``x + body(x)``."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = x + self.body(x)
        return y


class Beside(nn.Module):
    """Joins a map with what a body makes of it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2C, H, W)."""
        return torch.cat([x, self.body(x)], 1)


def _pspnet(channels: int, width: int) -> nn.Module:
    """Pyramid pooling (arXiv:1612.01105) of the encoder's own map; windows of one size."""
    return PyramidPooling(channels, "relu", out_channels=width, kernel=3)


def _danet(channels: int, width: int) -> nn.Module:
    """Dual attention (arXiv:1809.02983), added by a scale that starts at 0 as in the paper.

    Both attentions share the convolutions before and behind them and one scale; the paper has one
    of each per attention.
    """
    return nn.Sequential(
        conv_bn(channels, width, kernel=3, act="relu"),
        ScaledResidual(width, DualAttention(width, "relu")),
        conv_bn(width, width, kernel=3, act="relu"),
    )


def _emanet(channels: int, width: int) -> nn.Module:
    """Expectation-maximisation attention (arXiv:1907.13426), added to the map.

    The 64 bases begin as learnt ones, where the paper keeps their moving average.
    """
    return nn.Sequential(
        conv_bn(channels, width, kernel=3, act="relu"),
        Residual(ExpectationMaximisation(width, "relu")),
        conv_bn(width, width, kernel=3, act="relu"),
    )


def _ccnet(channels: int, width: int) -> nn.Module:
    """Criss-cross attention, twice (arXiv:1811.11721), beside the map that it came from.

    A pointwise convolution stands behind the attention, where the paper has a 3x3 one.
    """
    return nn.Sequential(
        conv_bn(channels, width, kernel=3, act="relu"),
        Beside(CrissCrossAttention(width, "relu")),
        conv_bn(2 * width, width, kernel=3, act="relu"),
    )


def _ocnet(channels: int, width: int) -> nn.Module:
    """Interlaced attention (arXiv:1907.12273, OCNet: arXiv:1809.00916) beside its map.

    Blocks of 4 x 4 places: as many blocks on a tile of 512 pixels as 8 x 8 make on the papers'
    images of 1024.
    """
    return nn.Sequential(
        conv_bn(channels, width, kernel=3, act="relu"),
        Beside(InterlacedAttention(width, "relu")),
        conv_bn(2 * width, width, act="relu"),
    )


_CONTEXTS: dict[DilatedContext, Callable[[int, int], nn.Module]] = {
    "pspnet": _pspnet,
    "danet": _danet,
    "emanet": _emanet,
    "ccnet": _ccnet,
    "ocnet": _ocnet,
}
