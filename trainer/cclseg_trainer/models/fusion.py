"""Fusion of a deep and a shallow map: the cross-correlational part of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import local_correlation
from .blocks import activation, conv_bn
from .gather import gathered

if TYPE_CHECKING:
    from ..model_config import CCLConfig

_START_SHARPNESS = 4.0  # of the softmax over a window's cosines: between a mean and a choice


class CCLFusion(nn.Module):
    """Adds a shallow map to a deep one; correlation decides how much of it, and from where.

    With the deep map D, the shallow map S, and V = BN(Wv S), all at one resolution::

        plain:   F = act(BN(Conv3x3(D + V)))
        gate:    F = act(BN(Conv3x3(D + V + gamma * M * V)))
        gather:  F = act(BN(Conv3x3(D + V + gamma * Y)))
        full:    F = act(BN(Conv3x3(D + V + gamma * M * w * Y')))

        R = similarity of Wq D with Wk S over a window of (2r + 1)^2 places, per group
        M = sigmoid(Wm R) in (0, 1)
        Y(p) = sum_delta softmax_delta(tau R(p) + b) V(p + delta)
        w, Y' = channel weights and the channel correlation of Y: see ChannelCorrelation

    gamma (one value per channel) starts at 0, so every network starts as the plain one and learns
    where agreement of deep and shallow features should amplify, suppress or move the skip. The
    similarity is the cosine, with ``centred`` that of vectors without their mean (ZNCC), or minus
    the mean squared or absolute difference. A window of one place (r = 0) has nothing to choose
    from: "gather" has a gate there.

    Args:
        config: Says which of these forms, by which metric, in how many groups.
        channels: C of the deep map.
        shallow_channels: Of the shallow map.
        radius: r.
        stride: Input pixels per place of the maps.
    """

    def __init__(
        self,
        config: CCLConfig,
        channels: int,
        shallow_channels: int,
        *,
        radius: int,
        stride: int,
    ) -> None:
        super().__init__()
        self.value = conv_bn(shallow_channels, channels)
        self.merge = nn.Sequential(
            conv_bn(channels, channels, kernel=3), activation(config.activation)
        )
        self.radius = radius
        self.groups = config.groups
        self.metric = config.metric
        self.centred = config.centred
        fusion = config.fusion
        self.correlates = fusion != "plain"
        self.has_gather = fusion in ("gather", "full") and radius > 0
        self.has_gate = fusion in ("gate", "full") or (fusion == "gather" and radius == 0)
        window = (2 * radius + 1) ** 2
        if self.correlates:
            inner = config.groups * config.group_channels
            self.query = nn.Conv2d(channels, inner, 1)
            self.key = nn.Conv2d(shallow_channels, inner, 1)
            self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))
        if self.has_gate:
            self.gate = nn.Conv2d(config.groups * window, channels, 1)
        if self.has_gather:
            self.sharpness, self.lag_bias = lag_parameters(config.groups, window)
        self.channel_correlation = (
            ChannelCorrelation(channels, stride=stride) if fusion == "full" else None
        )

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """Fuses the maps.

        Args:
            deep: (N, C, H, W) upsampled deep map.
            shallow: (N, C_s, H, W) encoder map.

        Returns:
            (N, C, H, W).
        """
        value = self.value(shallow)
        if self.correlates:
            value = value + self.gamma * self.correlated(deep, shallow, value)
        y: Tensor = self.merge(deep + value)
        return y

    def correlated(self, deep: Tensor, shallow: Tensor, value: Tensor) -> Tensor:
        """Returns what gamma scales, (N, C, H, W)."""
        similarity = self.similarity(deep, shallow)
        moved = value
        if self.has_gather:
            windows = torch.unflatten(similarity, 1, (self.groups, -1))
            weights = lag_scores(windows, self.sharpness, self.lag_bias).softmax(2)
            moved = gathered(weights, value, radius=self.radius)
        if self.channel_correlation is not None:
            moved = self.channel_correlation(deep, moved)
        return torch.sigmoid(self.gate(similarity)) * moved if self.has_gate else moved

    def similarity(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """Returns R, (N, G (2r + 1)^2, H, W): in [-1, 1] for "ncc", at most 0 otherwise."""
        query, key = self.query(deep), self.key(shallow)
        if self.centred:
            query, key = (_without_mean(maps, self.groups) for maps in (query, key))
        correlation = local_correlation(
            query,
            key,
            radius=self.radius,
            groups=self.groups,
            normalize=self.metric == "ncc",
            metric=self.metric,
        )
        return correlation if self.metric == "ncc" else -correlation


class ChannelCorrelation(nn.Module):
    """Lets the channels of a gathered map Y speak for each other, as the deep map D suggests.

    With a and b the rows of D and Y on a pooled grid, without their mean and of length 1::

        X  = a b^T                                  (C, C), Pearson's correlation of channels
        Y' = w * (Y + softmax(tau X) Y / 2)
        w  = sigmoid(W2 relu6(W1 [mean(D); rowmean(X)]))

    The grid has one cell per 32 x 32 input pixels, 16 x 16 for a tile of 512: pooling by windows
    of a fixed size, which every backend has, whatever the size of the image.

    Args:
        channels: C of both maps.
        stride: Input pixels per place of the maps; divides 32.
    """

    def __init__(self, channels: int, *, stride: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(32 // stride)
        self.sharpness = nn.Parameter(torch.ones(1))
        inner = max(channels // 4, 8)
        self.weigh = nn.Sequential(
            nn.Conv2d(2 * channels, inner, 1), nn.ReLU6(), nn.Conv2d(inner, channels, 1)
        )

    def forward(self, deep: Tensor, gathered_map: Tensor) -> Tensor:
        """(N, C, H, W) twice -> (N, C, H, W)."""
        rows, columns = (_unit_rows(self.pool(maps)) for maps in (deep, gathered_map))
        correlation = rows @ columns.transpose(1, 2)  # (N, C, C) in [-1, 1]
        mixed = (self.sharpness * correlation).softmax(2) @ gathered_map.flatten(2)
        y = gathered_map + 0.5 * mixed.reshape(gathered_map.shape)
        means = deep.mean((2, 3), keepdim=True)
        agreement = correlation.mean(2)[:, :, None, None]
        return torch.sigmoid(self.weigh(torch.cat([means, agreement], 1))) * y


def lag_parameters(groups: int, window: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Makes tau and b of a softmax over a window, (G, K) each."""
    sharpness = torch.full((groups, window), _START_SHARPNESS)
    return nn.Parameter(sharpness), nn.Parameter(torch.zeros_like(sharpness))


def lag_scores(windows: Tensor, sharpness: Tensor, bias: Tensor) -> Tensor:
    """Returns tau R + b for similarities R, (N, G, K, H, W)."""
    return sharpness[:, :, None, None] * windows + bias[:, :, None, None]


def _without_mean(maps: Tensor, groups: int) -> Tensor:
    """Takes the mean over its channels off each group vector."""
    grouped = torch.unflatten(maps, 1, (groups, -1))
    return (grouped - grouped.mean(2, keepdim=True)).flatten(1, 2)


def _unit_rows(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, h w), each row without its mean and of length 1."""
    rows = maps.flatten(2)
    return F.normalize(rows - rows.mean(2, keepdim=True), dim=2)
