"""PIDNet (arXiv:2206.02066): detail, context and boundary in three branches, like a controller's.

The branch of details keeps stride 8, that of context goes down to 64, and that of boundaries says
which of the two is right where.
"""

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
from .resnet import BasicBlock, Bottleneck


@dataclass(frozen=True, slots=True, kw_only=True)
class PIDNetConfig(ModelConfig):
    """The shape of a PIDNet.

    Attributes:
        width: Channels of the stem; those of all branches are multiples of it.
        pyramid_width: Channels per scale of the pyramid.
    """

    output_stride: ClassVar[int] = 8
    encoder: Encoder = "own"
    width: int = 32
    pyramid_width: int = 96


class PixelAttention(nn.Module):
    """Takes context where it agrees with the details (Pag).

    ``y = (1 - s) D + s C`` with ``s = sigmoid(sum_c Wd D * Wc C)``, C enlarged to the size of D.
    """

    def __init__(self, detail_channels: int, context_channels: int) -> None:
        super().__init__()
        inner = detail_channels // 2
        self.compress = conv_bn(context_channels, detail_channels)
        self.query = conv_bn(detail_channels, inner)
        self.key = conv_bn(detail_channels, inner)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """(N, C_d, H, W) and (N, C_c, h, w) -> (N, C_d, H, W)."""
        context = self.compress(context)
        key = resized(self.key(context), detail)
        agreement = (self.query(detail) * key).sum(1, keepdim=True).sigmoid()
        y: Tensor = (1 - agreement) * detail + agreement * resized(context, detail)
        return y


class ParallelPyramid(nn.Module):
    """Means over four sizes of window, processed side by side by one grouped convolution (PAPPM).

    Args:
        in_channels: C_in.
        inner_channels: Per scale.
        out_channels: C_out.
    """

    STRIDES = (2, 4, 8)

    def __init__(self, in_channels: int, inner_channels: int, out_channels: int) -> None:
        super().__init__()
        scales = len(self.STRIDES) + 1
        pools = [nn.AvgPool2d(2 * s + 1, s, s) for s in self.STRIDES]
        self.same = conv_bn(in_channels, inner_channels, act="relu")
        self.pooled = nn.ModuleList(
            nn.Sequential(pool, conv_bn(in_channels, inner_channels, act="relu")) for pool in pools
        )
        self.mean = conv_of_means(in_channels, inner_channels, act="relu")
        all_scales = scales * inner_channels
        self.process = conv_bn(all_scales, all_scales, kernel=3, groups=scales, act="relu")
        self.compress = conv_bn(all_scales + inner_channels, out_channels)
        self.shortcut = conv_bn(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)."""
        same = self.same(x)
        parts = [resized(level(x), x) + same for level in self.pooled]
        parts.append(self.mean(x.mean((2, 3), keepdim=True)) + same)
        processed = self.process(torch.cat(parts, 1))
        y: Tensor = self.compress(torch.cat([same, processed], 1)) + self.shortcut(x)
        return y


class BoundaryGuide(nn.Module):
    """Prefers details at boundaries and context elsewhere (Bag, the light form).

    ``y = Wd(D + (1 - s) C) + Wc(C + s D)`` with ``s = sigmoid(B)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = conv_bn(channels, channels)
        self.context = conv_bn(channels, channels)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        """Three maps (N, C, H, W) -> (N, C, H, W)."""
        at_boundary = boundary.sigmoid()
        details = self.detail(detail + (1 - at_boundary) * context)
        contexts = self.context(context + at_boundary * detail)
        return F.relu(details + contexts)


class ThreeBranches(nn.Module):
    """Runs the branches side by side; twice the context tells the other two what it has seen."""

    def __init__(self, in_bands: int, width: int, pyramid_width: int) -> None:
        super().__init__()
        detail, deep = 2 * width, 4 * width
        self.stem = nn.Sequential(
            conv_bn(in_bands, width, kernel=3, stride=2, act="relu"),
            conv_bn(width, width, kernel=3, stride=2, act="relu"),
            *_stage(width, width, blocks=2, stride=1),
            *_stage(width, detail, blocks=2, stride=2),
        )
        self.context = nn.ModuleList(
            (
                _stage(detail, 4 * width, blocks=3, stride=2),
                _stage(4 * width, 8 * width, blocks=3, stride=2),
                nn.Sequential(
                    Bottleneck(8 * width, 16 * width, stride=2, expansion=2),
                    Bottleneck(16 * width, 16 * width, expansion=2),
                    ParallelPyramid(16 * width, pyramid_width, deep),
                ),
            )
        )
        self.detail = nn.ModuleList(
            (
                _stage(detail, detail, blocks=2, stride=1, is_last=True),
                _stage(detail, detail, blocks=2, stride=1, is_last=True),
                Bottleneck(detail, deep, expansion=2, is_last=True),
            )
        )
        self.boundary = nn.ModuleList(
            (
                BasicBlock(detail, width, is_last=True),
                Bottleneck(width, detail, expansion=2, is_last=True),
                Bottleneck(detail, deep, expansion=2, is_last=True),
            )
        )
        self.attentions = nn.ModuleList(
            (PixelAttention(detail, 4 * width), PixelAttention(detail, 8 * width))
        )
        self.differences = nn.ModuleList(
            (conv_bn(4 * width, width, kernel=3), conv_bn(8 * width, detail, kernel=3))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> early details, early boundaries, details, context, boundaries.

        All at stride 8, the early ones with twice, the others with four times the width.
        """
        detail = boundary = context = self.stem(x)
        details = []
        for place, (attend, differ) in enumerate(
            zip(self.attentions, self.differences, strict=True)
        ):
            context = self.context[place](context)
            detail = F.relu(attend(self.detail[place](detail), context))
            change = resized(differ(context), detail)
            boundary = F.relu(self.boundary[place](boundary) + change)
            details.append(detail)
        context = resized(self.context[-1](context), detail)
        return [
            details[0],
            boundary,
            self.detail[-1](detail),
            context,
            self.boundary[-1](boundary),
        ]


class PIDNet(SegmentationNetwork):
    """Three branches, joined where boundaries say; logits at stride 8.

    Norms follow convolutions, where they fold, also in the pyramid. The early details learn
    classes and the boundary branch learns edges, by the heads that all networks have.

    Example:
        >>> model = build_model("pidnet-s", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 8, 8])
    """

    def __init__(self, config: PIDNetConfig) -> None:
        width = config.width
        deep = 4 * width
        head = nn.Sequential(
            conv_bn(deep, deep, kernel=3, act="relu"), nn.Conv2d(deep, config.num_classes, 1)
        )
        super().__init__(
            config,
            ThreeBranches(config.encoder_bands, width, config.pyramid_width),
            decoded_widths=(2 * width, 2 * width, deep),
            head=head,
            edges_at=(1,),
        )
        self.guide = BoundaryGuide(deep)

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """What :class:`ThreeBranches` gives -> early details, early boundaries, the joined map."""
        early_detail, early_boundary, detail, context, boundary = maps
        return [early_detail, early_boundary, self.guide(detail, context, boundary)]


def _stage(
    in_channels: int, out_channels: int, *, blocks: int, stride: int, is_last: bool = False
) -> nn.Sequential:
    """Makes a row of residual blocks; the last one keeps its sign where ``is_last``."""
    return nn.Sequential(
        *(
            BasicBlock(
                in_channels if place == 0 else out_channels,
                out_channels,
                stride=stride if place == 0 else 1,
                is_last=is_last and place == blocks - 1,
            )
            for place in range(blocks)
        )
    )
