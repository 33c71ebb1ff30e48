"""Residual blocks and ResNet-18 (arXiv:1512.03385), without classifier; random weights only."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import conv_bn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip, projected where the shape changes.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: Of the first convolution.
        is_last: Leave out the ReLU behind the sum.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, is_last: bool = False
    ) -> None:
        super().__init__()
        self.first = conv_bn(in_channels, out_channels, kernel=3, stride=stride, act="relu")
        self.second = conv_bn(out_channels, out_channels, kernel=3)
        self.skip = _skip(in_channels, out_channels, stride)
        self.act = nn.Identity() if is_last else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y: Tensor = self.act(self.second(self.first(x)) + self.skip(x))
        return y


class Bottleneck(nn.Module):
    """A 3x3 convolution between two pointwise ones, through 1 / expansion of the channels.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: Of the middle convolution.
        expansion: C_out per inner channel.
        is_last: Leave out the ReLU behind the sum.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        expansion: int,
        is_last: bool = False,
    ) -> None:
        super().__init__()
        inner = out_channels // expansion
        self.enter = conv_bn(in_channels, inner, act="relu")
        self.middle = conv_bn(inner, inner, kernel=3, stride=stride, act="relu")
        self.leave = conv_bn(inner, out_channels)
        self.skip = _skip(in_channels, out_channels, stride)
        self.act = nn.Identity() if is_last else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y: Tensor = self.act(self.leave(self.middle(self.enter(x))) + self.skip(x))
        return y


def _skip(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_bn(in_channels, out_channels, stride=stride)


class ResNet18(nn.Module):
    """(N, C, H, W) -> maps at strides 2, 4, 8, 16, 32."""

    widths = (64, 64, 128, 256, 512)

    def __init__(self, in_bands: int = 3) -> None:
        super().__init__()
        stem, *widths = self.widths
        self.stem = conv_bn(in_bands, stem, kernel=7, stride=2, act="relu")
        stages = []
        previous = stem
        for width in widths:
            stride = 1 if width == stem else 2  # before the first stage stands a pooling
            stages.append(
                nn.Sequential(
                    BasicBlock(previous, width, stride=stride), BasicBlock(width, width, stride=1)
                )
            )
            previous = width
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> maps with 64, 64, 128, 256, 512 channels."""
        maps = [self.stem(x)]
        x = F.max_pool2d(maps[0], 3, 2, 1)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
