"""Auto-correlation: what a map looks like next to itself, over several distances and scales.

Texture shows in how a place resembles its surroundings (self-similarity, CVPR 2007; RENet's
self-correlation, arXiv:2108.09666), whatever its colours are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import local_correlation
from .blocks import conv_bn
from .fusion import lag_parameters, lag_scores
from .gather import gathered

if TYPE_CHECKING:
    from ..model_config import Activation, AutoCorrelation, LagWeights

RADIUS = 1
GROUPS = 4
GROUP_CHANNELS = 8  # of the queries and keys of the biased attention
WIDTH = 32  # of what the levels tell each other
DILATIONS = ((1, 2), (1, 2, 4), (1, 2, 4, 8))
"""Of the correlations at strides 8, 16 and 32."""

_SIDE = 2 * RADIUS + 1
_WINDOW = _SIDE**2


class AutoCorrelationPyramid(nn.Module):
    """Adds to the encoder's maps what their auto-correlation says, from coarse to fine.

    At each level, with the map F in G groups of channels and one correlation per dilation a::

        R_a(p, delta) = w_a(delta) cos(F(p), F(p + a delta))
        H = act(BN(P [T_a(R_a)]_a)) + enlarged H of the coarser level
        F <- F + gamma * W H                          gamma starts at 0

    T is what the mode says (:class:`AutoCorrelationLevel`).

    Args:
        widths: Channels of the maps at strides 8, 16, 32; multiples of 4.
        mode: "descriptor", "rotation", "attention" or "biased-attention".
        lag_weights: "static": w is learnt; "dynamic": it is also changed by the image.
        act: Activation.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        mode: AutoCorrelation,
        lag_weights: LagWeights,
        act: Activation,
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            AutoCorrelationLevel(
                width, dilations, mode=mode, is_dynamic=lag_weights == "dynamic", act=act
            )
            for width, dilations in zip(widths, DILATIONS, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 8, 16, 32 -> maps of the same shapes."""
        changed = []
        told = None
        for level, x in zip(reversed(self.levels), reversed(maps), strict=True):
            y, told = level(x, told)
            changed.append(y)
        return changed[::-1]


class AutoCorrelationLevel(nn.Module):
    """One scale of the pyramid; what is said of R before the levels are joined is the mode's.

    ::

        descriptor:        R itself, without the place's correlation with itself
        rotation:          mean and largest R over lags of equal length: the same for a turned map
        attention:         sum_delta softmax_delta(tau R + b) V(p + a delta)
        biased-attention:  the same with softmax_delta(tau R + b + <Q(p), K(p + a delta)> / d)

    A dynamic w is multiplied by 1 + tanh(MLP(mean F)), which starts at 1.
    """

    def __init__(
        self,
        channels: int,
        dilations: tuple[int, ...],
        *,
        mode: AutoCorrelation,
        is_dynamic: bool,
        act: Activation,
    ) -> None:
        super().__init__()
        self.dilations = dilations
        self.mode = mode
        count = len(dilations)
        self.lags = nn.Parameter(torch.ones(count, GROUPS, _WINDOW))
        self.change = _LagChange(channels, self.lags.numel()) if is_dynamic else None
        if mode in ("attention", "biased-attention"):
            self.value = nn.Conv2d(channels, WIDTH, 1)
            self.sharpness, self.lag_bias = lag_parameters(GROUPS, _WINDOW)
        if mode == "biased-attention":
            self.query = nn.Conv2d(channels, GROUPS * GROUP_CHANNELS, 1)
            self.key = nn.Conv2d(channels, GROUPS * GROUP_CHANNELS, 1)
        told = {
            "descriptor": GROUPS * (_WINDOW - 1),
            "rotation": GROUPS * 2 * len(_RINGS),
        }.get(mode, WIDTH)
        self.join = conv_bn(count * told, WIDTH, act=act)
        self.project = conv_bn(WIDTH, channels)
        self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """Changes a map.

        Args:
            x: (N, C, H, W).
            coarser: (N, WIDTH, H / 2, W / 2) from the level below, None at the deepest.

        Returns:
            The changed map, and what the next finer level is told, (N, WIDTH, H, W).
        """
        told = self.join(torch.cat([self.told(x, i) for i in range(len(self.dilations))], 1))
        if coarser is not None:
            told = told + F.interpolate(coarser, scale_factor=2.0, mode="bilinear")
        return x + self.gamma * self.project(told), told

    def correlation(self, x: Tensor, index: int) -> Tensor:
        """Returns the weighted R of one dilation, (N, G, K, H, W)."""
        similarity = local_correlation(
            x, x, radius=RADIUS, dilation=self.dilations[index], groups=GROUPS, normalize=True
        )
        weights = self.lags[index][:, :, None, None]
        if self.change is not None:
            changes = torch.unflatten(self.change(x), 1, (len(self.dilations), GROUPS, _WINDOW))
            weights = weights * changes[:, index]
        return weights * torch.unflatten(similarity, 1, (GROUPS, _WINDOW))

    def told(self, x: Tensor, index: int) -> Tensor:
        """Returns T_a(R_a) for one dilation, (N, channels, H, W)."""
        similarity = self.correlation(x, index)
        if self.mode == "descriptor":
            centre = _WINDOW // 2
            others = [similarity[:, :, :centre], similarity[:, :, centre + 1 :]]
            return torch.cat(others, 2).flatten(1, 2)
        if self.mode == "rotation":
            return rotation_pooled(similarity).flatten(1, 2)
        scores = lag_scores(similarity, self.sharpness, self.lag_bias)
        dilation = self.dilations[index]
        if self.mode == "biased-attention":
            agreement = local_correlation(
                self.query(x), self.key(x), radius=RADIUS, dilation=dilation, groups=GROUPS
            )
            scores = scores + torch.unflatten(agreement, 1, (GROUPS, _WINDOW))
        return gathered(scores.softmax(2), self.value(x), radius=RADIUS, dilation=dilation)


class _LagChange(nn.Module):
    """1 + tanh(MLP(mean over the map)): a factor per lag that starts at 1."""

    def __init__(self, channels: int, lags: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, max(channels // 4, 8), 1)
        self.last = nn.Conv2d(max(channels // 4, 8), lags, 1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, lags, 1, 1)."""
        means = x.mean((2, 3), keepdim=True)
        y: Tensor = 1 + torch.tanh(self.last(F.relu(self.first(means))))
        return y


def _rings() -> tuple[tuple[int, ...], ...]:
    """Groups the lags of a window, but its centre, by their length."""
    rings: dict[int, list[int]] = {}
    for lag in range(_WINDOW):
        down, right = (step - RADIUS for step in divmod(lag, _SIDE))
        if lag != _WINDOW // 2:
            rings.setdefault(down * down + right * right, []).append(lag)
    return tuple(tuple(rings[length]) for length in sorted(rings))


_RINGS = _rings()


def rotation_pooled(similarity: Tensor) -> Tensor:
    """Returns mean and largest of each ring of lags, which a quarter turn of the map only turns.

    Args:
        similarity: (N, G, K, H, W) over a window of :data:`RADIUS`.

    Returns:
        (N, G, 2 * rings, H, W): the means, then the largest values, from the inner ring outwards.
    """
    rings = [torch.stack([similarity[:, :, lag] for lag in ring], 2) for ring in _RINGS]
    means = [ring.mean(2) for ring in rings]
    largest = [ring.amax(2) for ring in rings]
    return torch.stack(means + largest, 2)
