"""Convolution blocks of the encoders and the decoder.

Maps are (N, C, H, W). GND stands for GELU, norm, depthwise: the paper's encoder block.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model_config import Activation

_Block = TypeVar("_Block", bound=nn.Module)


def activation(kind: Activation) -> nn.Module:
    """Makes the activation named ``kind``."""
    kinds: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "relu6": nn.ReLU6,
        "gelu": nn.GELU,
        "hardswish": nn.Hardswish,
    }
    return kinds[kind]()


def conv_bn(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    act: Activation | None = None,
) -> nn.Sequential:
    """Makes a convolution without bias, its batch norm, and an activation if one is named."""
    margin = kernel // 2 * dilation
    conv = nn.Conv2d(
        in_channels, out_channels, kernel, stride, margin, dilation, groups=groups, bias=False
    )
    layers = [conv, nn.BatchNorm2d(out_channels)]
    return nn.Sequential(*layers, activation(act)) if act else nn.Sequential(*layers)


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Resizes a map bilinearly to another's height and width: (N, C, h, w) -> (N, C, H, W)."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear")


def conv_of_means(in_channels: int, out_channels: int, *, act: Activation) -> nn.Sequential:
    """Makes a pointwise convolution with bias and an activation, for the mean over a whole map.

    Without a batch norm: each image gives one value per channel, so that in a small batch the norm
    would tell the images of the batch apart and little else, and nothing of it would hold later.
    """
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), activation(act))


class MultiScaleDepthwise(nn.Module):
    """Parallel depthwise convolutions of several sizes, each normalised, and an identity branch.

    ``y = BN_0(x) + sum_k BN_k(DW_k(x))``. :meth:`merged` returns the one depthwise convolution
    with bias that computes the same map at inference: every kernel is padded to the largest size,
    the norms are folded in, and the sum is taken over weights instead of maps.
    """

    def __init__(self, channels: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels
        self.kernels = kernels
        self.identity = nn.BatchNorm2d(channels)
        self.branches = nn.ModuleList(
            conv_bn(channels, channels, kernel=k, groups=channels) for k in kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = self.identity(x)
        for branch in self.branches:
            y = y + branch(x)
        return y

    @torch.no_grad()
    def merged(self) -> nn.Conv2d:
        """Returns the equivalent depthwise convolution; exact where the norms are in eval mode."""
        size = max(self.kernels)
        conv = nn.Conv2d(
            self.channels, self.channels, size, padding=size // 2, groups=self.channels
        )
        scale, shift = _norm_as_affine(self.identity)
        conv.weight.zero_()
        conv.weight[:, 0, size // 2, size // 2] = scale
        bias = shift
        for branch, kernel in zip(self.branches, self.kernels, strict=True):
            assert isinstance(branch, nn.Sequential)
            depthwise, norm = branch[0], branch[1]
            assert isinstance(depthwise, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            scale, shift = _norm_as_affine(norm)
            margin = (size - kernel) // 2
            conv.weight += F.pad(depthwise.weight * scale[:, None, None, None], [margin] * 4)
            bias = bias + shift
        assert conv.bias is not None
        conv.bias.copy_(bias)
        return conv.to(scale.device)


class GND(nn.Module):
    """Multi-scale depthwise convolution, activation, pointwise convolution, norm, activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernels: tuple[int, ...], act: Activation
    ) -> None:
        super().__init__()
        self.depthwise: nn.Module = MultiScaleDepthwise(in_channels, kernels)
        self.act = activation(act)
        self.pointwise = conv_bn(in_channels, out_channels, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)."""
        y: Tensor = self.pointwise(self.act(self.depthwise(x)))
        return y


class ResidualGND(nn.Module):
    """``x + BN(PW2(act(PW1(MSDW(x)))))`` with an inner expansion of 2."""

    def __init__(
        self, channels: int, kernels: tuple[int, ...], act: Activation, expansion: int = 2
    ) -> None:
        super().__init__()
        self.depthwise: nn.Module = MultiScaleDepthwise(channels, kernels)
        self.expand = conv_bn(channels, channels * expansion, act=act)
        self.project = conv_bn(channels * expansion, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = x + self.project(self.expand(self.depthwise(x)))
        return y


class ScaledResidual(nn.Module):
    """``x + gamma body(x)`` with one gamma per channel that starts at 0.

    A network with such a block starts as the one without it, so that pretrained weights see the
    maps they know, and a comparison of blocks begins on equal ground.

    Args:
        channels: C of the maps.
        body: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = x + self.gamma * self.body(x)
        return y


class DeconvUpsample(nn.Module):
    """Doubles height and width: a stride-2 deconvolution in its convolution form.

    A transposed convolution with kernel 2 and stride 2 equals a 1x1 convolution to four times the
    channels followed by a pixel shuffle (arXiv:1609.07009), and only the latter can be quantised
    by ONNX Runtime. Norm and activation stand before the shuffle, where they fuse with the
    convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, act: Activation) -> None:
        super().__init__()
        self.conv = conv_bn(in_channels, 4 * out_channels, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, 2H, 2W)."""
        return F.pixel_shuffle(self.conv(x), 2)

    @torch.no_grad()
    def load_deconvolution(self, weight: Tensor) -> None:
        """Takes over the weights of ``nn.ConvTranspose2d(C_in, C_out, 2, 2, bias=False)``.

        Args:
            weight: (C_in, C_out, 2, 2); tap (i, j) becomes the channel 4 c_out + 2 i + j.
        """
        in_channels, out_channels = weight.shape[:2]
        taps = weight.permute(1, 2, 3, 0).reshape(4 * out_channels, in_channels, 1, 1)
        self.conv[0].load_state_dict({"weight": taps})


def merged_for_inference(model: _Block) -> _Block:
    """Returns a copy in eval mode that computes the same with fewer operations.

    Multi-scale depthwise blocks become one convolution each, and every batch norm that follows a
    convolution is folded into its weights.
    """
    merged = copy.deepcopy(model).eval()
    _replace_children(merged, MultiScaleDepthwise, MultiScaleDepthwise.merged)
    for parent in list(merged.modules()):
        if isinstance(parent, nn.Sequential):
            for index in range(len(parent) - 1):
                conv, norm = parent[index], parent[index + 1]
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    parent[index] = fuse_conv_bn_eval(conv, norm)
                    parent[index + 1] = nn.Identity()
    return merged


def _replace_children(
    model: nn.Module, kind: type[_Block], replacement: Callable[[_Block], nn.Module]
) -> None:
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, name, replacement(child))


def _norm_as_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Returns scale and shift (C,) of a batch norm with its running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias - norm.running_mean * scale
