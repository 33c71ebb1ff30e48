"""Blocks whose receptive field follows the content: deformable, and dilated by choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import ScaledResidual, conv_bn

if TYPE_CHECKING:
    from ..model_config import Activation, Adaptive

_DILATIONS = (1, 2, 4)


def deform_conv2d(x: Tensor, offsets: Tensor, masks: Tensor, weight: Tensor) -> Tensor:
    """Convolves with taps that have moved: modulated deformable convolution (arXiv:1811.11168).

    ``y(p) = sum_k w_k m_k(p) x(p + k + o_k(p))``, x interpolated bilinearly and 0 outside the map.
    One ``grid_sample`` fetches all taps, which ONNX has from operator set 16 on.

    Args:
        x: (N, C, H, W).
        offsets: (N, 2 K, H, W) in pixels; channel 2 k moves tap k down, 2 k + 1 to the right.
        masks: (N, K, H, W), a weight for each tap at each place.
        weight: (C_out, C / groups, k, k) with k odd and K = k^2; C_out is a multiple of groups.

    Returns:
        (N, C_out, H, W).
    """
    # Half precision is too coarse for places; under autocast it is what x arrives in.
    work = torch.promote_types(x.dtype, torch.float32)
    x, offsets = x.to(work), offsets.to(work)
    channels, height, width = x.shape[1:]
    side = weight.shape[-1]
    taps = side * side
    groups = channels // weight.shape[1]
    steps, all_rows, all_columns = (
        torch.arange(count, dtype=work, device=x.device) for count in (taps, height, width)
    )
    down = torch.div(steps, side, rounding_mode="floor") - side // 2
    right = steps % side - side // 2
    rows = all_rows[:, None] + down[:, None, None]  # (K, H, 1)
    columns = all_columns[None] + right[:, None, None]  # (K, 1, W)
    moved = torch.unflatten(offsets, 1, (taps, 2))
    # grid_sample counts from -1 to 1 between the outer borders of the first and last pixel.
    grid = torch.stack(
        [
            (2 * (columns + moved[:, :, 1]) + 1) / width - 1,
            (2 * (rows + moved[:, :, 0]) + 1) / height - 1,
        ],
        -1,
    )  # (N, K, H, W, 2) as (x, y)
    seen = F.grid_sample(x, grid.flatten(1, 2), mode="bilinear", align_corners=False)
    seen = torch.unflatten(seen, 2, (taps, height)) * masks.unsqueeze(1)  # (N, C, K, H, W)
    taken = seen.flatten(1, 2).to(weight.dtype)
    return F.conv2d(taken, weight.flatten(1)[:, :, None, None], groups=groups)


class DeformableDepthwise(nn.Module):
    """Depthwise 3x3 deformable convolution; its taps start in their usual places.

    The convolution that moves the taps starts at 0, and a mask is twice a sigmoid, which starts
    at 1: the layer starts as a plain depthwise convolution.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.place = nn.Conv2d(channels, 27, 3, padding=1)
        nn.init.zeros_(self.place.weight)
        assert self.place.bias is not None
        nn.init.zeros_(self.place.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        places = self.place(x)
        masks = 2 * torch.sigmoid(places[:, 18:])
        return deform_conv2d(x, places[:, :18], masks, self.weight)


class SelectedDilation(nn.Module):
    """Depthwise convolutions of several dilations, mixed at each place by what is seen there.

    The twin of the deformable layer without a gather (LSK-D, after arXiv:2303.09030)::

        y(p) = PW(sum_d a_d(p) DW_d(x)(p)),  a = softmax_d(W x),  d in {1, 2, 4}
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            conv_bn(channels, channels, kernel=3, dilation=d, groups=channels) for d in _DILATIONS
        )
        self.choice = nn.Conv2d(channels, len(_DILATIONS), 1)
        self.pointwise = conv_bn(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        shares = self.choice(x).softmax(1)
        mixed = None
        for index, branch in enumerate(self.branches):
            term = shares[:, index : index + 1] * branch(x)
            mixed = term if mixed is None else mixed + term
        y: Tensor = self.pointwise(mixed)
        return y


def build_adaptive(kind: Adaptive, channels: int, act: Activation) -> nn.Module:
    """Makes the block ``kind`` for maps of so many channels; it starts as the identity."""
    if kind == "none":
        return nn.Identity()
    if kind == "lsk":
        return ScaledResidual(channels, SelectedDilation(channels))
    deformable = nn.Sequential(
        DeformableDepthwise(channels),
        nn.BatchNorm2d(channels),
        conv_bn(channels, channels, act=act),
    )
    return ScaledResidual(channels, deformable)
