"""Gated-SCNN (arXiv:1907.05740): beside the encoder a stream for shapes, gated by what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model_config import Encoder, ModelConfig
from .blocks import conv_bn, resized
from .context import AtrousPyramid
from .encoders import build_encoder
from .network import SegmentationNetwork
from .resnet import BasicBlock

_SHAPE_TO_DEEPEST = 8  # from stride 4 to 32


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedSCNNConfig(ModelConfig):
    """The shape of a Gated-SCNN.

    Attributes:
        shape_widths: Channels of the shape stream, first and behind each of its three gates.
        pyramid_width: Channels of the atrous pyramid.
        skip_width: Channels that the map at stride 4 has where it joins the pyramid's.
        decoder_width: Channels of the joined map.
    """

    output_stride: ClassVar[int] = 4
    encoder: Encoder = "lite0"
    shape_widths: tuple[int, int, int, int] = (32, 32, 16, 8)
    pyramid_width: int = 128
    skip_width: int = 48
    decoder_width: int = 128


class GatedStep(nn.Module):
    """A residual block, and a gate that opens where a deep map expects a boundary.

    ``y = W(x (1 + s))`` with ``s = sigmoid(g([x, h(D)]))``, D the deep map, h one channel of it.

    Args:
        in_channels: C_in of the shapes.
        out_channels: C_out.
        deep_channels: C_d of the encoder's map.
    """

    def __init__(self, in_channels: int, out_channels: int, deep_channels: int) -> None:
        super().__init__()
        self.block = BasicBlock(in_channels, in_channels)
        self.narrow = conv_bn(in_channels, out_channels, act="relu")
        self.hint = nn.Conv2d(deep_channels, 1, 1)
        self.gate = nn.Sequential(
            conv_bn(out_channels + 1, out_channels + 1, act="relu"),
            nn.Conv2d(out_channels + 1, 1, 1),
        )
        self.mix = conv_bn(out_channels, out_channels, act="relu")

    def forward(self, x: Tensor, deep: Tensor) -> Tensor:
        """(N, C_in, H, W) and (N, C_d, h, w) -> (N, C_out, H, W)."""
        x = self.narrow(self.block(x))
        gate = self.gate(torch.cat([x, resized(self.hint(deep), x)], 1)).sigmoid()
        y: Tensor = self.mix(x * (1 + gate))
        return y


class ShapePyramid(nn.Module):
    """An atrous pyramid that is told where boundaries run.

    Args:
        channels: C of the deepest map.
        shape_channels: C_s of the shapes.
        out_channels: C_out.
    """

    def __init__(self, channels: int, shape_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = out_channels // 4
        self.pyramid = AtrousPyramid(channels, "relu", out_channels=out_channels)
        self.boundary = nn.Conv2d(shape_channels, 1, 1)
        self.enter = conv_bn(1, inner, act="relu")
        self.join = conv_bn(out_channels + inner, out_channels, act="relu")

    def forward(self, x: Tensor, shapes: Tensor) -> Tensor:
        """(N, C, H, W) and (N, C_s, 8 H, 8 W) -> (N, C_out, H, W)."""
        boundary = F.avg_pool2d(self.boundary(shapes).sigmoid(), _SHAPE_TO_DEEPEST)
        y: Tensor = self.join(torch.cat([self.pyramid(x), self.enter(boundary)], 1))
        return y


class GatedSCNN(SegmentationNetwork):
    """Encoder, gated shape stream, and the decoder of DeepLabV3+; logits at stride 4.

    The paper's encoder is a WideResNet of stride 8 with shapes at full size and a Canny filter
    beside them; here the encoder is that of the networks it is compared with, shapes are learnt at
    stride 4, where all networks learn edges, and there is no filter.

    Example:
        >>> model = build_model("gscnn-lite0", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 16, 16])
    """

    def __init__(self, config: GatedSCNNConfig) -> None:
        encoder = build_encoder(config.encoder, config.encoder_bands)
        _, low, *deeper = encoder.widths
        first, *gated = config.shape_widths
        shape, pyramid, joined = gated[-1], config.pyramid_width, config.decoder_width
        super().__init__(
            config,
            encoder,
            decoded_widths=(pyramid, shape, joined),
            head=nn.Sequential(nn.Conv2d(joined, config.num_classes, 1)),
            edges_at=(1,),
        )
        self.enter = conv_bn(low, first, act="relu")
        self.steps = nn.ModuleList(
            GatedStep(taken, given, deep)
            for taken, given, deep in zip((first, *gated), gated, deeper, strict=False)
        )
        self.pyramid = ShapePyramid(deeper[-1], shape, pyramid)
        self.skip = conv_bn(low, config.skip_width, act="relu")
        self.join = conv_bn(pyramid + config.skip_width, joined, kernel=3, act="relu")

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 2 to 32 -> the pyramid at stride 32, shapes and the joined map at 4."""
        _, low, *deeper = maps
        shapes = self.enter(low)
        for step, deep in zip(self.steps, deeper, strict=True):
            shapes = step(shapes, deep)
        context = self.pyramid(deeper[-1], shapes)
        joined = self.join(torch.cat([self.skip(low), resized(context, low)], 1))
        return [context, shapes, joined]
