"""BiSeNetV2 (arXiv:2004.02147): a shallow branch for details, a deep one for meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model_config import Encoder, ModelConfig
from .blocks import conv_bn, conv_of_means, resized
from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class BiSeNetV2Config(ModelConfig):
    """The shape of a BiSeNetV2.

    Attributes:
        detail_widths: Channels of the detail branch at strides 2, 4, 8.
        semantic_widths: Channels of the semantic branch at strides 4, 8, 16, 32; the last are as
            many as the last ones of the detail branch.
        head_width: Channels in front of the classifier.
    """

    output_stride: ClassVar[int] = 8
    encoder: Encoder = "own"
    detail_widths: tuple[int, int, int] = (64, 64, 128)
    semantic_widths: tuple[int, int, int, int] = (16, 32, 64, 128)
    head_width: int = 1024


class Stem(nn.Module):
    """Quarters the size twice over: by convolution and by pooling, joined."""

    def __init__(self, in_bands: int, channels: int) -> None:
        super().__init__()
        self.enter = conv_bn(in_bands, channels, kernel=3, stride=2, act="relu")
        self.convolve = nn.Sequential(
            conv_bn(channels, channels // 2, act="relu"),
            conv_bn(channels // 2, channels, kernel=3, stride=2, act="relu"),
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.join = conv_bn(2 * channels, channels, kernel=3, act="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C, H / 4, W / 4)."""
        x = self.enter(x)
        y: Tensor = self.join(torch.cat([self.convolve(x), self.pool(x)], 1))
        return y


class GatherExpand(nn.Module):
    """A 3x3 convolution, depthwise ones on six times the channels, a projection, and a skip.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: 1, or 2 with a second depthwise convolution and a skip of its own.
    """

    EXPANSION = 6

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        inner = in_channels * self.EXPANSION
        depthwise = [conv_bn(in_channels, inner, kernel=3, stride=stride, groups=in_channels)]
        if stride > 1:
            depthwise.append(conv_bn(inner, inner, kernel=3, groups=inner))
        self.body = nn.Sequential(
            conv_bn(in_channels, in_channels, kernel=3, act="relu"),
            *depthwise,
            nn.ReLU(),
            conv_bn(inner, out_channels),
        )
        self.skip = (
            nn.Sequential(
                conv_bn(in_channels, in_channels, kernel=3, stride=stride, groups=in_channels),
                conv_bn(in_channels, out_channels),
            )
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        return F.relu(self.body(x) + self.skip(x))


class ContextEmbedding(nn.Module):
    """Adds the mean over the map to each place, and convolves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = conv_of_means(channels, channels, act="relu")
        self.join = conv_bn(channels, channels, kernel=3, act="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = self.join(x + self.mean(x.mean((2, 3), keepdim=True)))
        return y


class GuidedAggregation(nn.Module):
    """Each branch weighs the other, once at the size of the details and once at that of meaning.

    ::

        fine = A(D) * sigmoid(up(B(S)))
        coarse = down(D) * sigmoid(E(S))
        y = conv3x3(fine + up(coarse))
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = _depthwise_pointwise(channels)
        self.detail_down = nn.Sequential(
            conv_bn(channels, channels, kernel=3, stride=2), nn.AvgPool2d(3, 2, 1)
        )
        self.semantic_up = conv_bn(channels, channels, kernel=3)
        self.semantic = _depthwise_pointwise(channels)
        self.join = conv_bn(channels, channels, kernel=3, act="relu")

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        """(N, C, H, W) and (N, C, H / 4, W / 4) -> (N, C, H, W)."""
        fine = self.detail(detail) * resized(self.semantic_up(semantic), detail).sigmoid()
        coarse = self.detail_down(detail) * self.semantic(semantic).sigmoid()
        y: Tensor = self.join(fine + resized(coarse, detail))
        return y


class TwoBranches(nn.Module):
    """Looks at the image twice: for details down to stride 8, for meaning down to 32."""

    def __init__(self, config: BiSeNetV2Config) -> None:
        super().__init__()
        bands = config.encoder_bands
        details: list[nn.Module] = []
        previous = bands
        for repeats, width in zip((1, 2, 2), config.detail_widths, strict=True):
            details.append(conv_bn(previous, width, kernel=3, stride=2, act="relu"))
            details += [conv_bn(width, width, kernel=3, act="relu") for _ in range(repeats)]
            previous = width
        self.detail = nn.Sequential(*details)
        stem, *widths = config.semantic_widths
        semantics: list[nn.Module] = [Stem(bands, stem)]
        previous = stem
        for repeats, width in zip((1, 1, 3), widths, strict=True):
            semantics.append(GatherExpand(previous, width, stride=2))
            semantics += [GatherExpand(width, width, stride=1) for _ in range(repeats)]
            previous = width
        self.semantic = nn.Sequential(*semantics, ContextEmbedding(previous))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> details at stride 8, meaning at stride 32."""
        return [self.detail(x), self.semantic(x)]


class BiSeNetV2(SegmentationNetwork):
    """Two branches and their guided aggregation; logits at stride 8.

    Of the paper's four auxiliary heads the deepest is left, as in all networks.

    Example:
        >>> model = build_model("bisenetv2", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 8, 8])
    """

    def __init__(self, config: BiSeNetV2Config) -> None:
        width = config.detail_widths[-1]
        head = nn.Sequential(
            conv_bn(width, config.head_width, kernel=3, act="relu"),
            nn.Conv2d(config.head_width, config.num_classes, 1),
        )
        super().__init__(
            config,
            TwoBranches(config),
            decoded_widths=(width, width, width),
            head=head,
            edges_at=(2, 1),
        )
        self.aggregate = GuidedAggregation(width)

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Details and meaning -> meaning at stride 32, details and both joined at stride 8."""
        detail, semantic = maps
        return [semantic, detail, self.aggregate(detail, semantic)]


def _depthwise_pointwise(channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv_bn(channels, channels, kernel=3, groups=channels), nn.Conv2d(channels, channels, 1)
    )
