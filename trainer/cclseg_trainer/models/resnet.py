"""ResNet-18 (arXiv:1512.03385) without its classifier; random weights only."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import conv_bn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip, projected where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(in_channels, out_channels, kernel=3, stride=stride, act="relu")
        self.second = conv_bn(out_channels, out_channels, kernel=3)
        is_same = stride == 1 and in_channels == out_channels
        self.skip = nn.Identity() if is_same else conv_bn(in_channels, out_channels, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        return F.relu(self.second(self.first(x)) + self.skip(x))


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
