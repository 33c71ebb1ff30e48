"""Encoders: an image becomes maps at strides 2, 4, 8, 16 and 32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cclseg.errors import InputError

from .blocks import GND, ResidualGND, conv_bn
from .resnet import ResNet18

if TYPE_CHECKING:
    from ..model_config import Activation, Dense, Encoder

_GND_KERNELS = ((3,), (3,), (3, 5), (3, 5, 7), (3, 5, 7))
_DENSE_STAGE = 2  # of those behind the stem: the one at stride 16, which has the most blocks


class LinkedBlock(nn.Module):
    """A block that sees earlier maps: ``block(x + gamma BN(W [x_1, x_2, ...]))``, gamma 0 at first.

    Args:
        channels: C of all maps.
        block: (N, C, H, W) -> (N, C, H, W).
        links: How many earlier maps it sees.
    """

    def __init__(self, channels: int, block: nn.Module, links: int) -> None:
        super().__init__()
        self.block = block
        self.link = conv_bn(channels * links, channels)
        self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """(N, C, H, W), the latest map, and the earlier ones -> (N, C, H, W)."""
        y: Tensor = self.block(x + self.gamma * self.link(torch.cat(list(earlier), 1)))
        return y


class HarmonicBlocks(nn.Module):
    """A chain of blocks with links that leave blocks out (HarDNet, arXiv:1909.00948).

    Block k sees, besides the map before it, that of block k - d for each power of two ``d >= 2``
    that divides k.

    Args:
        channels: C of all maps.
        blocks: The chain, each (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self._seen = [
            [k - 2**n for n in range(1, k.bit_length()) if k % 2**n == 0]
            for k in range(1, len(blocks) + 1)
        ]
        self.blocks = nn.ModuleList(
            LinkedBlock(channels, block, len(seen)) if seen else block
            for block, seen in zip(blocks, self._seen, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        maps = [x]
        for block, seen in zip(self.blocks, self._seen, strict=True):
            x = block(x, [maps[place] for place in seen]) if seen else block(x)
            maps.append(x)
        return x


class GNDEncoder(nn.Module):
    """The paper's encoder: stages of ``MaxPool(GND(x))`` followed by residual GND blocks.

    The stem and the first stage use dense 3x3 convolutions: with so few channels a dense
    convolution is as fast in INT8 as a depthwise and a pointwise one.

    Args:
        in_bands: Number of input channels.
        widths: Channels at strides 2, 4, 8, 16, 32.
        blocks: Residual GND blocks at these strides.
        act: Activation.
        expansion: Inner widening of the residual blocks.
        dense: "harmonic" for links between the blocks at stride 16.
    """

    def __init__(
        self,
        in_bands: int,
        *,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        act: Activation,
        expansion: int = 2,
        dense: Dense = "none",
    ) -> None:
        super().__init__()
        self.widths = widths
        stem = widths[0]
        self.stem = nn.Sequential(
            conv_bn(in_bands, stem, kernel=3, stride=2, act=act),
            *(ResidualGND(stem, _GND_KERNELS[0], act, expansion) for _ in range(blocks[0])),
        )
        stages = []
        previous = stem
        for index, width in enumerate(widths[1:]):
            kernels = _GND_KERNELS[index + 1]
            widen = (
                conv_bn(previous, width, kernel=3, act=act)
                if index == 0
                else GND(previous, width, kernels, act)
            )
            residual: list[nn.Module] = [
                ResidualGND(width, kernels, act, expansion) for _ in range(blocks[index + 1])
            ]
            if dense == "harmonic" and index == _DENSE_STAGE:
                residual = [HarmonicBlocks(width, residual)]
            stages.append(nn.Sequential(widen, nn.MaxPool2d(2), *residual))
            previous = width
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> maps at strides 2, 4, 8, 16, 32."""
        x = self.stem(x)
        maps = [x]
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": where the padding is odd, more goes to the end.

    The ImageNet weights of EfficientNet-Lite were trained so; symmetric padding would shift every
    stride-2 stage by half a pixel. A convolution has a stride or a dilation, not both.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride))."""
        kernel, stride, dilation = self.kernel_size[0], self.stride[0], self.dilation[0]
        if stride == 1:
            margin = kernel // 2 * dilation
            return F.conv2d(x, self.weight, self.bias, 1, margin, dilation, self.groups)
        height, width = x.shape[-2:]
        total_y = max((-(-height // stride) - 1) * stride + kernel - height, 0)
        total_x = max((-(-width // stride) - 1) * stride + kernel - width, 0)
        margins = [total_x // 2, total_x - total_x // 2, total_y // 2, total_y - total_y // 2]
        return F.conv2d(F.pad(x, margins), self.weight, self.bias, stride, 0, groups=self.groups)


def _same_conv_bn(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    act: bool = True,
) -> nn.Sequential:
    conv = SameConv2d(
        in_channels, out_channels, kernel, stride, dilation=dilation, groups=groups, bias=False
    )
    norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
    return nn.Sequential(conv, norm, nn.ReLU6()) if act else nn.Sequential(conv, norm)


class InvertedResidual(nn.Module):
    """MobileNetV2 block: expand, depthwise, project; a skip where the shape stays."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.has_skip = stride == 1 and in_channels == out_channels
        self.expand = _same_conv_bn(in_channels, inner) if expansion != 1 else nn.Identity()
        self.depthwise = _same_conv_bn(
            inner, inner, kernel=kernel, stride=stride, dilation=dilation, groups=inner
        )
        self.project = _same_conv_bn(inner, out_channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.has_skip else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite without its classifier: no squeeze-and-excite, ReLU6, INT8-friendly.

    At an output stride of 8 or 16 later strides become dilations (arXiv:1606.00915). The weights
    are the same, and so is what they compute at the places that the strided encoder has: its map
    is ``dilated[..., 1::2, 1::2]`` for each stride that was replaced, because "SAME" padding
    centres the output i of a stride-2 convolution on its input 2 i + 1.

    Args:
        in_bands: Number of input channels.
        output_stride: Of the deepest map: 8, 16 or 32.

    Attributes:
        STAGES: (kernel, stride, expansion, channels, repeats) of each stage.
        NAME: Of the member of the family, for messages.
        widths: Channels of the maps at strides 2, 4, 8, 16, 32, or the output stride for those
            above it.
    """

    STAGES: tuple[tuple[int, int, int, int, int], ...]
    NAME: str
    TAPS = (0, 1, 2, 4, 6)  # the last stage at strides 2, 4, 8, 16, 32

    def __init__(self, in_bands: int = 3, *, output_stride: int = 32) -> None:
        super().__init__()
        self.stem = _same_conv_bn(in_bands, 32, kernel=3, stride=2)
        stages = []
        previous = 32
        reached = 2  # input pixels per place so far
        dilation = 1
        for kernel, stride, expansion, channels, repeats in self.STAGES:
            is_dilated = reached * stride > output_stride
            blocks = []
            for repeat in range(repeats):
                blocks.append(
                    InvertedResidual(
                        previous,
                        channels,
                        kernel=kernel,
                        stride=stride if repeat == 0 and not is_dilated else 1,
                        expansion=expansion,
                        dilation=dilation,
                    )
                )
                previous = channels
                if repeat == 0 and is_dilated:  # its own input still has the finer spacing
                    dilation *= stride
            reached *= 1 if is_dilated else stride
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.widths = tuple(self.STAGES[tap][3] for tap in self.TAPS)

    def freeze(self, stages: int) -> None:
        """Takes the stem and the first ``stages`` stages out of training.

        Their maps are the largest, so a third of a training step's time goes with them, and what
        they detect (edges, colours) needs no relearning.
        """
        if stages:
            for part in (self.stem, *self.stages[:stages]):
                part.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> maps at strides 2, 4, 8, 16, 32."""
        x = self.stem(x)
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.TAPS:
                maps.append(x)
        return maps


class EfficientNetLite0(EfficientNetLite):
    """The smallest of the family: 3.0 M parameters; maps of 16, 24, 40, 112, 320 channels."""

    NAME = "lite0"
    STAGES = (
        (3, 1, 1, 16, 1),
        (3, 2, 6, 24, 2),
        (5, 2, 6, 40, 2),
        (3, 2, 6, 80, 3),
        (5, 1, 6, 112, 3),
        (5, 2, 6, 192, 4),
        (3, 1, 6, 320, 1),
    )


class EfficientNetLite2(EfficientNetLite):
    """1.1 times as wide and 1.2 times as deep: 4.4 M; 16, 24, 48, 120, 352 channels."""

    NAME = "lite2"
    STAGES = (
        (3, 1, 1, 16, 1),
        (3, 2, 6, 24, 3),
        (5, 2, 6, 48, 3),
        (3, 2, 6, 88, 4),
        (5, 1, 6, 120, 4),
        (5, 2, 6, 208, 5),
        (3, 1, 6, 352, 1),
    )


def build_encoder(
    name: Encoder, in_bands: int, *, output_stride: int = 32
) -> EfficientNetLite | ResNet18:
    """Makes an encoder of fixed shape, with random weights.

    Args:
        name: Of the encoder.
        in_bands: Number of input channels.
        output_stride: Of the deepest map; 8 and 16 have dilations in place of later strides.

    Raises:
        InputError: The encoder does not end at this stride.
    """
    offered = (32,) if name == "resnet18" else (8, 16, 32)
    if output_stride not in offered:
        raise InputError(
            f"{name} has no output_stride {output_stride}; expected one of {offered}, and lite0 "
            "or lite2 for less than 32"
        )
    if name == "resnet18":
        return ResNet18(in_bands)
    kinds: dict[str, type[EfficientNetLite]] = {
        "lite0": EfficientNetLite0,
        "lite2": EfficientNetLite2,
    }
    return kinds[name](in_bands, output_stride=output_stride)
