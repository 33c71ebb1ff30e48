"""Where scores of "here" and "not here" part: a number, or what Otsu finds in their histogram.

Otsu (1979) cuts where the variance between the classes is largest; with three classes the upper
cut counts. Both are searched exhaustively over 256 bins. OpenCV's own takes images of 8 bits only,
and scikit-image is more than a device should need for this; the tests hold these against both.

A histogram of one hump is cut as well: Otsu always finds two classes. How well they are told apart
is said by the separability, the share of the variance that lies between them.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Threshold: TypeAlias = float | Literal["otsu", "multi-otsu"]
"""A score from which on it counts, or how to find one."""

_BINS = 256

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cut:
    """A threshold and how well it separates.

    Attributes:
        value: Scores from this on belong to the upper class.
        separability: Variance between the classes over all variance, 0 to 1; None for a threshold
            that was given.
    """

    value: float
    separability: float | None


def cut_at(threshold: Threshold, scores: NDArray[Any]) -> Cut:
    """Finds the threshold that was asked for.

    Args:
        threshold: A number, "otsu" or "multi-otsu".
        scores: Finite numbers of any shape.

    Raises:
        InputError: It is neither a finite number nor one of these names.
    """
    if threshold == "otsu":
        return otsu(scores)
    if threshold == "multi-otsu":
        return multi_otsu(scores)
    if isinstance(threshold, str) or not math.isfinite(threshold):
        raise InputError(
            f"the threshold is '{threshold}'; expected 'otsu', 'multi-otsu' or a number such as 0.8"
        )
    return Cut(float(threshold), None)


def otsu(scores: NDArray[Any]) -> Cut:
    """Cuts scores into two classes; where all are equal none belongs to the upper one."""
    return _cut(scores, lambda spread: spread[0, :] + spread[:, -1])


def multi_otsu(scores: NDArray[Any]) -> Cut:
    """Cuts scores into three classes and returns the upper cut; stricter than :func:`otsu`."""
    return _cut(scores, lambda spread: spread[0, :, None] + spread + spread[:, -1])


def _cut(scores: NDArray[Any], between: Any) -> Cut:  # noqa: ANN401 - a function of arrays
    """Cuts where ``between``, a function of :func:`_spreads`, is largest along its last axis."""
    if scores.size == 0:
        raise InputError("there are no scores to find a threshold in; give a number instead")
    low, high = float(scores.min()), float(scores.max())
    if not low < high:
        _log.warning("all scores are %.3f: no threshold tells them apart; give a number", low)
        return Cut(math.nextafter(high, math.inf), 0.0)
    counts, edges = np.histogram(scores, _BINS, (low, high))
    centres = (edges[1:] + edges[:-1]) / 2
    spread = _spreads(counts, centres - np.average(centres, weights=counts))
    total = np.average((centres - np.average(centres, weights=counts)) ** 2, weights=counts)
    variances = between(spread) / counts.sum()
    best = np.unravel_index(int(variances.argmax()), variances.shape)
    return Cut(float(edges[best[-1]]), float(min(1.0, variances[best] / total)))


def _spreads(counts: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
    """Returns at (i, j) what bins i..j-1 add to the variance between classes: sum^2 / count.

    Args:
        counts: (n,) how many scores each bin has.
        values: (n,) centres of the bins, of zero mean over all scores.

    Returns:
        (n + 1, n + 1) float64, 0 for bins without scores, -inf where j < i.
    """
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    sums = np.concatenate([[0], np.cumsum(counts * values)])
    count, total = ends - ends[:, None], sums - sums[:, None]
    spread = np.zeros(count.shape)
    np.divide(total**2, count, out=spread, where=count > 0)
    spread[np.tril_indices(len(ends), -1)] = -math.inf
    return spread
