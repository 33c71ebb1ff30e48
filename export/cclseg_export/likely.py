"""What a class would lose on other images of the same kind, foretold from a few of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cclseg.metrics import Counts

_RESAMPLES = 2000


def likely_losses(before: Counts, after: Counts, *, confidence: float) -> NDArray[np.float64]:
    """Bounds what each class would lose on other images of the same kind.

    A few images say little about others. So the images are drawn again and again with
    replacement (the bootstrap of Efron, 1979), and the loss is taken that a share of the draws
    stays below.

    Args:
        before: (N, K, K) confusion counts of the reference, one matrix an image.
        after: (N, K, K) counts of the candidate on the same images.
        confidence: Share of draws in 0..1.

    Returns:
        (K,) losses in points; NaN where a class occurs in no draw.
    """
    return _quantile(100 * (iou_of(_drawn(before)) - iou_of(_drawn(after))), confidence)


def drift_losses(pairs: Counts, iou: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns what each class would lose where the labels are on the side of the reference.

    Rounding favours some classes a little. Where the pixels that change sides happen to be wrong
    before, the labels forgive that; elsewhere they may all have been right. A class that shrinks
    or grows by a share s then loses about s of its IoU.

    All images count together, without a bound: pixels that nearly tie flip in both directions, by
    chance differently in each image, and a bound on that says more of the number of images than of
    the rounding.

    Args:
        pairs: (N, K, K) pixels by class of the reference (row) and of the candidate (column).
        iou: (K,) of the reference.

    Returns:
        (K,) losses in points; NaN where the reference sees a class nowhere.
    """
    total = pairs.sum(axis=0)
    were, are = total.sum(axis=1), total.sum(axis=0)
    drift = np.where(were > 0, np.abs(are - were) / np.maximum(were, 1), np.nan)
    losses: NDArray[np.float64] = 100 * np.nan_to_num(iou) * drift
    return losses


def iou_of(counts: Counts) -> NDArray[np.float64]:
    """Returns IoU (..., K) of confusion counts (..., K, K); NaN where a class occurs nowhere."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    union = counts.sum(axis=-1) + counts.sum(axis=-2) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


def _drawn(counts: Counts) -> Counts:
    """Returns the sums (draws, K, K) of as many matrices as there are, drawn with replacement."""
    images = len(counts)
    draws = np.random.default_rng(0).multinomial(images, [1 / images] * images, size=_RESAMPLES)
    drawn: Counts = np.einsum("rn,nkl->rkl", draws, counts)
    return drawn


def _quantile(points: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    """Returns what a share of the draws (draws, K) stays below; NaN where a class is in none."""
    present = ~np.isnan(points).all(axis=0)
    quantiles = np.full(points.shape[1], np.nan)
    quantiles[present] = np.nanquantile(points[:, present], confidence, axis=0)
    return quantiles
