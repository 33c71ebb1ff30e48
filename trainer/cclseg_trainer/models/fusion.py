"""Fusion of a deep and a shallow map: the cross-correlational part of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..ops import local_correlation
from .blocks import activation, conv_bn

if TYPE_CHECKING:
    from .config import Activation, Fusion


class CCLFusion(nn.Module):
    """Adds a shallow map to a deep one; with "gate", correlation decides how much of it.

    With the deep map D and the shallow map S at one resolution::

        plain:  F = act(BN(Conv3x3(D + Wv S)))
        gate:   F = act(BN(Conv3x3(D + (1 + gamma * M) * Wv S)))
                M = sigmoid(Wm R) in (0, 1)
                R = cosine correlation of Wq D with Wk S over a window of (2r + 1)^2 places

    gamma (one value per channel) starts at 0, so a gated network starts as the plain one and
    learns where agreement of deep and shallow features should amplify or suppress the skip.
    """

    def __init__(
        self,
        channels: int,
        shallow_channels: int,
        *,
        fusion: Fusion,
        radius: int,
        groups: int,
        group_channels: int,
        act: Activation,
    ) -> None:
        super().__init__()
        self.value = conv_bn(shallow_channels, channels)
        self.merge = nn.Sequential(conv_bn(channels, channels, kernel=3), activation(act))
        self.radius = radius
        self.groups = groups
        self.has_gate = fusion == "gate"
        if self.has_gate:
            inner = groups * group_channels
            window = (2 * radius + 1) ** 2
            self.query = nn.Conv2d(channels, inner, 1)
            self.key = nn.Conv2d(shallow_channels, inner, 1)
            self.gate = nn.Conv2d(groups * window, channels, 1)
            self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """Fuses the maps.

        Args:
            deep: (N, C, H, W) upsampled deep map.
            shallow: (N, C_s, H, W) encoder map.

        Returns:
            (N, C, H, W).
        """
        value = self.value(shallow)
        if self.has_gate:
            correlation = local_correlation(
                self.query(deep),
                self.key(shallow),
                radius=self.radius,
                groups=self.groups,
                normalize=True,
            )  # (N, G * window, H, W) in [-1, 1]
            mask = torch.sigmoid(self.gate(correlation))
            value = value + self.gamma * mask * value
        y: Tensor = self.merge(deep + value)
        return y
