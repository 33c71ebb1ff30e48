"""Attention as context: places and channels that look alike tell each other what they are.

Each block takes and gives (N, C, H, W). Means stand where the papers have sums, so that a network
trained on crops behaves alike on larger images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import conv_bn

if TYPE_CHECKING:
    from ..model_config import Activation

_KEY_SHARE = 8  # channels per channel of a key, as in the papers


class _Projections(nn.Module):
    """Queries and keys of C / 8 channels, values of C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // _KEY_SHARE, 1)
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = inner**-0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, C, H, W) -> scaled queries, keys, values."""
        return self.query(x) * self.scale, self.key(x), self.value(x)


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns ``softmax(q^T k + b) v`` over the last axis.

    Args:
        queries: (..., D, L).
        keys: (..., D, M).
        values: (..., C, M).
        bias: (..., L, M), None for 0.

    Returns:
        (..., C, L).
    """
    scores = queries.transpose(-1, -2) @ keys  # (..., L, M)
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return values @ weights.transpose(-1, -2)


class DualAttention(nn.Module):
    """Position and channel attention side by side (DANet, arXiv:1809.02983).

    ``y = W(softmax(Q^T K) V + softmax(X X^T / HW) X)``; the paper's two scales are one here, that
    of the residual around the block.
    """

    def __init__(self, channels: int, act: Activation) -> None:
        super().__init__()
        self.projections = _Projections(channels)
        self.project = conv_bn(channels, channels, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        queries, keys, values = (maps.flatten(2) for maps in self.projections(x))
        places = x.flatten(2)
        alike = places @ places.transpose(1, 2) / places.shape[2]
        summed = attend(queries, keys, values) + alike.softmax(-1) @ places
        y: Tensor = self.project(summed.reshape(x.shape))
        return y


class ExpectationMaximisation(nn.Module):
    """Rebuilds the map from a few bases, found by unrolled EM steps (EMANet, arXiv:1907.13426).

    ::

        Z = softmax_k(X^T M)          responsibilities of the bases for each place
        M = X Z / sum(Z)              the bases, then scaled to length 1
        y = W relu(M Z^T)

    Three steps from learnt bases; the paper starts from their moving average instead.
    """

    STEPS = 3

    def __init__(self, channels: int, act: Activation, bases: int = 64) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, channels, 1)
        self.bases = nn.Parameter(torch.randn(1, channels, bases) * (2 / bases) ** 0.5)
        self.project = conv_bn(channels, channels, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        places = self.enter(x).flatten(2)  # (N, C, HW)
        bases = F.normalize(self.bases, dim=1)
        shares = None
        for _ in range(self.STEPS):
            shares = (places.transpose(1, 2) @ bases).softmax(2)  # (N, HW, K)
            weights = shares / (shares.sum(1, keepdim=True) + 1e-6)
            bases = F.normalize(places @ weights, dim=1)
        assert shares is not None
        rebuilt = F.relu(bases @ shares.transpose(1, 2))
        y: Tensor = self.project(rebuilt.reshape(x.shape))
        return y


class CrissCrossAttention(nn.Module):
    """Attends to row and column, twice: every place reaches every other (arXiv:1811.11721).

    Two axial matrix products share one softmax over the H + W places. A place meets itself in its
    row and in its column; the paper masks one of the two, here both count.
    """

    ROUNDS = 2

    def __init__(self, channels: int, act: Activation) -> None:
        super().__init__()
        self.projections = _Projections(channels)
        self.project = conv_bn(channels, channels, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        seen = x
        for _ in range(self.ROUNDS):
            seen = seen + self.across(seen)
        y: Tensor = self.project(seen)
        return y

    def across(self, x: Tensor) -> Tensor:
        """Returns what each place gathers from its row and column, (N, C, H, W)."""
        queries, keys, values = self.projections(x)
        width = x.shape[3]
        by_row = _rows(queries).transpose(2, 3) @ _rows(keys)  # (N, H, W, W)
        by_column = _columns(queries).transpose(2, 3) @ _columns(keys)  # (N, W, H, H)
        weights = torch.cat([by_row, by_column.transpose(1, 2)], 3).softmax(3)  # (N, H, W, W + H)
        in_row = _rows(values) @ weights[..., :width].transpose(2, 3)  # (N, H, C, W)
        in_column = _columns(values) @ weights[..., width:].permute(0, 2, 3, 1)  # (N, W, C, H)
        return in_row.transpose(1, 2) + in_column.permute(0, 2, 3, 1)


def _rows(maps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, C, W)."""
    return maps.transpose(1, 2)


def _columns(maps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, W, C, H)."""
    return maps.permute(0, 3, 1, 2)


class InterlacedAttention(nn.Module):
    """Attends over long, then over short distances (OCNet's interlaced form, arXiv:1907.12273).

    The map is cut into blocks of P x P places. First the places with the same position in their
    blocks attend to each other, then those of one block. A map whose size is no multiple of P is
    continued by its border for that.
    """

    BLOCK = 4

    def __init__(self, channels: int, act: Activation) -> None:
        super().__init__()
        self.long = _Projections(channels)
        self.short = _Projections(channels)
        self.project = conv_bn(channels, channels, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        height, width = x.shape[-2:]
        seen = F.pad(x, [0, -width % self.BLOCK, 0, -height % self.BLOCK], mode="replicate")
        seen = self.within(self.long(seen), is_long=True)
        seen = self.within(self.short(seen), is_long=False)
        y: Tensor = self.project(seen[..., :height, :width])
        return y

    def within(self, maps: tuple[Tensor, Tensor, Tensor], *, is_long: bool) -> Tensor:
        """Attends inside each set of places; queries, keys, values -> (N, C, H, W)."""
        sizes = maps[2].shape
        blocks = (-1, self.BLOCK)
        grids = [
            torch.unflatten(torch.unflatten(m, 3, blocks), 2, blocks) for m in maps
        ]  # (N, C, h, P, w, P)
        # The four axes of the sets come first, the channels, then the places of a set.
        order = (0, 3, 5, 1, 2, 4) if is_long else (0, 2, 4, 1, 3, 5)
        sets = [grid.permute(order) for grid in grids]
        places = attend(*(one.flatten(4) for one in sets)).reshape(sets[2].shape)
        back = (0, 3, 4, 1, 5, 2) if is_long else (0, 3, 1, 4, 2, 5)
        return places.permute(back).reshape(sizes)
