"""HRNet (arXiv:1908.07919): maps of all sizes side by side, which tell each other what they see."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model_config import Encoder, ModelConfig
from .blocks import conv_bn, resized
from .network import SegmentationNetwork
from .resnet import BasicBlock, Bottleneck


@dataclass(frozen=True, slots=True, kw_only=True)
class HRNetConfig(ModelConfig):
    """The shape of an HRNet.

    Attributes:
        stem_width: Channels of the stem.
        first_width: Channels of the first stage.
        widths: Channels of the branches at strides 4, 8, 16, 32.
        blocks: Residual blocks of a branch in each stage.
    """

    output_stride: ClassVar[int] = 4
    encoder: Encoder = "own"
    stem_width: int = 64
    first_width: int = 128
    widths: tuple[int, ...] = (16, 32, 64, 128)
    blocks: int = 2


class Exchange(nn.Module):
    """Gives each branch the sum of all: larger maps by strided convolutions, smaller ones enlarged.

    Args:
        widths: Channels of the branches, from large to small maps.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        places = range(len(widths))
        self.paths = nn.ModuleList(
            nn.ModuleList(
                _path(widths[source], widths[target], halvings=target - source) for source in places
            )
            for target in places
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One map per branch -> the same shapes."""
        told = []
        for paths in self.paths:
            assert isinstance(paths, nn.ModuleList)
            parts = (path(x) for path, x in zip(paths, maps, strict=True))
            told.append(F.relu(functools.reduce(operator.add, parts)))
        return told


class Stage(nn.Module):
    """Residual blocks on each branch, then an exchange; a new branch begins in front of them.

    Args:
        taken: Channels of the maps that come in.
        widths: Channels of the branches, one more than there are maps.
        blocks: Per branch.
    """

    def __init__(self, taken: Sequence[int], widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList(
            nn.Identity() if width == had else conv_bn(had, width, kernel=3, act="relu")
            for had, width in zip(taken, widths, strict=False)
        )
        self.begin = conv_bn(taken[-1], widths[-1], kernel=3, stride=2, act="relu")
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(blocks))) for width in widths
        )
        self.exchange = Exchange(widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the branches so far -> maps of one branch more."""
        entered = [enter(x) for enter, x in zip(self.enter, maps, strict=True)]
        entered.append(self.begin(maps[-1]))
        told: list[Tensor] = self.exchange(
            [branch(x) for branch, x in zip(self.branches, entered, strict=True)]
        )
        return told


class HighResolutionEncoder(nn.Module):
    """A stem and a first stage at stride 4, then stages of two, three and four branches."""

    def __init__(self, config: HRNetConfig) -> None:
        super().__init__()
        stem, first, widths = config.stem_width, config.first_width, config.widths
        self.stem = nn.Sequential(
            conv_bn(config.encoder_bands, stem, kernel=3, stride=2, act="relu"),
            conv_bn(stem, stem, kernel=3, stride=2, act="relu"),
            Bottleneck(stem, first, expansion=4),
        )
        self.stages = nn.ModuleList()
        taken: tuple[int, ...] = (first,)
        for branches in range(2, len(widths) + 1):
            self.stages.append(Stage(taken, widths[:branches], config.blocks))
            taken = widths[:branches]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> maps at strides 4, 8, 16, 32."""
        maps = [self.stem(x)]
        for stage in self.stages:
            maps = stage(maps)
        return maps


class HRNet(SegmentationNetwork):
    """Branches at four sizes, at last joined at the largest; logits at stride 4.

    Example:
        >>> model = build_model("hrnet-small", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 16, 16])
    """

    def __init__(self, config: HRNetConfig) -> None:
        total = sum(config.widths)
        super().__init__(
            config,
            HighResolutionEncoder(config),
            decoded_widths=(*reversed(config.widths[1:]), total),
            head=nn.Sequential(nn.Conv2d(total, config.num_classes, 1)),
            edges_at=(3, 2, 1),
        )
        self.join = conv_bn(total, total, act="relu")

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 4 to 32 -> those at strides 32, 16, 8, and all joined at 4."""
        largest, *smaller = maps
        joined = self.join(torch.cat([largest, *(resized(x, largest) for x in smaller)], 1))
        return [*reversed(smaller), joined]


def _path(in_channels: int, out_channels: int, *, halvings: int) -> nn.Module:
    """Makes the way from one branch to another whose map is ``2 ** halvings`` times smaller."""
    if halvings == 0:
        return nn.Identity()
    if halvings < 0:
        enlarge = nn.Upsample(scale_factor=2.0**-halvings, mode="nearest")
        return nn.Sequential(conv_bn(in_channels, out_channels), enlarge)
    halve = (
        conv_bn(in_channels, in_channels, kernel=3, stride=2, act="relu")
        for _ in range(halvings - 1)
    )
    return nn.Sequential(*halve, conv_bn(in_channels, out_channels, kernel=3, stride=2))
