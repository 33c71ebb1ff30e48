"""Ways to enlarge a deep map other than the deconvolution of :mod:`.blocks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import local_correlation
from .blocks import DeconvUpsample, conv_bn
from .fusion import lag_parameters
from .gather import gathered

if TYPE_CHECKING:
    from ..model_config import Activation, CCLConfig

_PHASES = 4  # fine places in each coarse one


class BilinearUpsample(nn.Module):
    """A pointwise convolution, then bilinear interpolation to twice the height and width."""

    def __init__(self, in_channels: int, out_channels: int, act: Activation) -> None:
        super().__init__()
        self.conv = conv_bn(in_channels, out_channels, act=act)

    def forward(self, deep: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, 2H, 2W)."""
        return F.interpolate(self.conv(deep), scale_factor=2.0, mode="bilinear")


class CorrelationUpsample(nn.Module):
    """Gathers each fine place from the coarse places whose features fit it best.

    After SAPA (arXiv:2209.12866): with the deep map D at half the resolution of the shallow map S,
    and V = act(BN(Wv D))::

        A(p, delta) = softmax_delta(tau cos(Wq S(p), Wk D(p' + delta)) + b)      p' = floor(p / 2)
        F(p) = sum_delta A(p, delta) V(p' + delta)                               delta in 3 x 3

    The four fine places of a coarse one are computed as four sets of groups of one correlation at
    the coarse resolution; a pixel shuffle puts them in their places.

    Args:
        in_channels: Of the deep map.
        out_channels: Of the result.
        shallow_channels: Of the shallow map.
        groups: Correlation groups G.
        group_channels: Channels per group.
        act: Activation of the values.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        shallow_channels: int,
        *,
        groups: int,
        group_channels: int,
        act: Activation,
    ) -> None:
        super().__init__()
        inner = groups * group_channels
        self.value = conv_bn(in_channels, out_channels, act=act)
        self.query = nn.Conv2d(shallow_channels, inner, 1)
        self.key = nn.Conv2d(in_channels, inner, 1)
        self.groups = groups
        self.sharpness, self.lag_bias = lag_parameters(groups, 9)

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """(N, C_in, H, W) and (N, C_s, 2H, 2W) -> (N, C_out, 2H, 2W)."""
        groups = self.groups
        # (N, G d, 2H, 2W) -> (N, G, 4, d, H, W): one query per fine place
        phases = F.pixel_unshuffle(self.query(shallow), 2)
        fine = torch.unflatten(phases, 1, (groups, -1, _PHASES)).transpose(2, 3)
        coarse = torch.unflatten(self.key(deep), 1, (groups, 1, -1)).expand_as(fine)
        similarity = local_correlation(
            fine.flatten(1, 3),
            coarse.flatten(1, 3),
            radius=1,
            groups=_PHASES * groups,
            normalize=True,
        )
        windows = torch.unflatten(similarity, 1, (groups, _PHASES, 9))  # (N, G, 4, 9, H, W)
        sharpness, bias = (p[:, None, :, None, None] for p in (self.sharpness, self.lag_bias))
        weights = (sharpness * windows + bias).softmax(3)
        return F.pixel_shuffle(self.phases_of(weights, self.value(deep)), 2)

    def phases_of(self, weights: Tensor, values: Tensor) -> Tensor:
        """Gathers for each fine place: (N, G, 4, 9, H, W) and (N, C, H, W) -> (N, 4 C, H, W)."""
        grouped = torch.unflatten(values, 1, (self.groups, 1, -1))  # (N, G, 1, C/G, H, W)
        repeated = grouped.expand(-1, -1, _PHASES, -1, -1, -1).flatten(1, 3)
        moved = gathered(weights.flatten(1, 2), repeated, radius=1)  # (N, G 4 C/G, H, W)
        by_phase = torch.unflatten(moved, 1, (self.groups, _PHASES, -1))
        return by_phase.transpose(2, 3).flatten(1, 3)


def build_upsample(
    config: CCLConfig, in_channels: int, out_channels: int, shallow_channels: int
) -> DeconvUpsample | BilinearUpsample | CorrelationUpsample:
    """Makes the enlargement that a configuration names."""
    act = config.activation
    if config.up == "corr":
        return CorrelationUpsample(
            in_channels,
            out_channels,
            shallow_channels,
            groups=config.groups,
            group_channels=config.group_channels,
            act=act,
        )
    kind = DeconvUpsample if config.up == "deconv" else BilinearUpsample
    return kind(in_channels, out_channels, act)
