"""Losses that need no label: what neighbours, superpixels and similar places say of a pixel.

They make use of the pixels that nobody labelled: beside points, scribbles and polygons, in images
without a mask, in ignored areas.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_EDGE_SHARPNESS = 2.0  # kappa
_LEAST_ATTRACTION = 0.05  # w0: neighbours of other colours still attract a little


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of the pixels besides their labels, at the resolution of the logits.

    Attributes:
        images: (N, C, h, w) network input, averaged over the cells of the logits.
        edges: (N, 1, h, w) probability that a class boundary runs through a cell; no gradient.
        unlabelled: (N, h, w) bool: cells to which the losses apply.
        segments: (N, L, h, w) int64 superpixel ids of L scales, from 0 on in each map.
    """

    images: Tensor
    edges: Tensor
    unlabelled: Tensor
    segments: Tensor


def potential_loss(logits: Tensor, around: Surroundings, *, edge_weight: float = 1.0) -> Tensor:
    """The project's potential, as a loss: superpixels and neighbours shall have one class.

    ``L = mean_l sum_s theta_s |s| (1 - max_k Qs(k)) / sum_s |s|
    + edge_weight * sum_ij w_ij (1 - Qi . Qj) / sum_ij w_ij``

    over superpixels s of each scale l and over pairs of neighbours (i, j), both only as far as they
    hold unlabelled cells. Qs is the mean of the probabilities Q in s. ``theta_s = exp(-v_s / v)
    (1 - e_s)`` trusts a superpixel less the more its colours vary (variance v_s, v its mean) and
    the more of an edge it holds (mean e_s). ``w_ij = (1 - max(e_i, e_j))^2 (exp(-|I_i - I_j|^2 /
    2 sigma^2) + 0.05)``, sigma^2 the mean squared difference of neighbours. A regularised loss in
    the manner of Tang et al. (arXiv:1803.09569).

    Args:
        logits: (N, K, h, w).
        around: Colours, edges and superpixels of the same cells.
        edge_weight: Weight of the pairs.

    Returns:
        Scalar; 0 where all is labelled.
    """
    probabilities = logits.softmax(1)
    scales = [
        _segment_term(probabilities, around, segments) for segments in around.segments.unbind(1)
    ]
    return torch.stack(scales).mean() + edge_weight * _pair_term(probabilities, around)


def _segment_term(probabilities: Tensor, around: Surroundings, segments: Tensor) -> Tensor:
    """The first sum of the potential at one scale."""
    batch = len(probabilities)
    per_map = int(segments.max()) + 1
    ids = (
        segments + per_map * torch.arange(batch, device=segments.device)[:, None, None]
    ).flatten()

    def mean(values: Tensor) -> Tensor:  # (N, c, h, w) -> (S, c) over the superpixels
        flat = values.movedim(1, -1).flatten(0, 2)
        sums = flat.new_zeros(batch * per_map, flat.shape[1]).index_add(0, ids, flat)
        return sums / sizes.clamp_min(1)

    ones = probabilities.new_ones(len(ids), 1)
    sizes = ones.new_zeros(batch * per_map, 1).index_add(0, ids, ones)
    open_cells = around.unlabelled.flatten()[:, None].to(ones)
    count = ones.new_zeros(batch * per_map, 1).index_add(0, ids, open_cells)[:, 0]
    variance = (mean(around.images**2) - mean(around.images) ** 2).clamp_min(0).sum(1)
    present = sizes[:, 0] > 0
    quality = torch.exp(-variance / variance[present].mean().clamp_min(1e-6))
    quality = quality * (1 - mean(around.edges)[:, 0])
    disagreement = 1 - mean(probabilities).amax(1)
    return (count * quality * disagreement).sum() / count.sum().clamp_min(1)


def _pair_term(probabilities: Tensor, around: Surroundings) -> Tensor:
    """The second sum of the potential, over the four neighbours."""
    weighted, total = probabilities.new_zeros(()), probabilities.new_zeros(())
    for axis in (-2, -1):
        pairs = around.images.diff(dim=axis).square().sum(1)  # (N, h', w')
        attraction = torch.exp(-pairs / (2 * pairs.mean()).clamp_min(1e-6)) + _LEAST_ATTRACTION
        edges = torch.maximum(*_neighbours(around.edges[:, 0], axis))
        touched = torch.logical_or(*_neighbours(around.unlabelled, axis))
        weights = (1 - edges) ** _EDGE_SHARPNESS * attraction * touched
        first, second = _neighbours(probabilities, axis)
        weighted = weighted + (weights * (1 - (first * second).sum(1))).sum()
        total = total + weights.sum()
    return weighted / total.clamp_min(1e-6)


def _neighbours(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Returns all cells with a next one along an axis, and those next ones."""
    length = values.shape[axis]
    return values.narrow(axis, 0, length - 1), values.narrow(axis, 1, length - 1)


def sparse_loss(
    logits: Tensor,
    *,
    sampled: int = 256,
    alpha: float = 0.5,
    beta: float = 1.5,
    gamma: float = 1.0,
) -> Tensor:
    """FESTA (Hua et al., GRSL 2022): a regulariser for points, scribbles and polygons.

    For sampled cells with feature f: ``alpha |f - nearest in feature space| + beta |f - most
    similar of the eight neighbours| + gamma cos(f, farthest in feature space)``. Similar places are
    drawn together, also across the image, and different ones apart. The features are the class
    scores, scaled to unit length: the exported network has no others of that size.

    Args:
        logits: (N, K, h, w), h and w at least 3.
        sampled: Cells per image, drawn anew by torch's random numbers.
        alpha: Weight of the nearest in feature space.
        beta: Weight of the most similar neighbour.
        gamma: Weight of the farthest in feature space.
    """
    height, width = logits.shape[-2:]
    features = F.normalize(logits, dim=1)
    inner = (height - 2) * (width - 2)
    chosen = torch.randperm(inner, device=logits.device)[: min(sampled, inner)]
    y, x = chosen // (width - 2) + 1, chosen % (width - 2) + 1
    anchors = features[:, :, y, x].movedim(1, -1)  # (N, P, K)
    similarity = anchors @ anchors.transpose(1, 2)  # (N, P, P), cosines
    itself = torch.eye(len(chosen), dtype=torch.bool, device=logits.device)
    nearest = similarity.masked_fill(itself, -2).amax(2)
    farthest = similarity.amin(2)
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    around = torch.stack([features[:, :, y + dy, x + dx] for dy, dx in steps])  # (8, N, K, P)
    neighbour = (around * anchors.movedim(-1, 1)).sum(2).amax(0)  # (N, P)
    losses = alpha * _distance(nearest) + beta * _distance(neighbour) + gamma * farthest
    return losses.mean()


def _distance(cosine: Tensor) -> Tensor:
    """Euclidean distance of unit vectors; its gradient stays finite where they are equal."""
    return (2 - 2 * cosine).clamp_min(1e-6).sqrt()
