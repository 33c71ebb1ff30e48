"""Where to cut a range: from a histogram of magnitudes to the largest one that INT8 keeps.

A few outliers can stretch a range so that everything else falls on few integers. Each method takes
the counts of ``|x|`` in equal bins from 0 to the largest value seen, and answers with the end of
one of the bins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from cclseg.errors import InputError
from cclseg.suggest import did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]

Method = Literal["minmax", "entropy", "percentile", "mse"]

METHODS = ("minmax", "entropy", "percentile", "mse")
LEVELS = 127
"""Steps from 0 to the end of a signed range, which every target can write."""

_SHIFTS = 8  # every so many bins an end is tried
_ALMOST_NONE = 1e-4  # of a count


def threshold(
    counts: Counts, largest: float, *, method: Method, percentile: float = 99.99
) -> float:
    """Returns the end of a range.

    Args:
        counts: Of magnitudes, in equal bins over [0, largest].
        largest: The largest magnitude.
        method: How the end is chosen.
        percentile: Share of magnitudes in percent that "percentile" keeps.

    Raises:
        InputError: There is no such method, or the percentile is not one.
    """
    check_method(method, percentile)
    if method == "minmax" or not counts[1:].any():
        return largest
    ends = {"entropy": _by_entropy, "mse": _by_error}
    bins = ends[method](counts) if method in ends else _by_percentile(counts, percentile)
    return largest * bins / len(counts)


def check_method(method: str, percentile: float) -> None:
    """Refuses what is no method.

    Raises:
        InputError: There is no such method, or the percentile is not one.
    """
    if method not in METHODS:
        raise InputError(f"no calibration method '{method}'; {did_you_mean(method, METHODS)}")
    if not 50 < percentile <= 100:
        raise InputError(
            f"percentile is {percentile}; expected the share of magnitudes to keep in percent, "
            "for instance 99.99"
        )


def _by_percentile(counts: Counts, percentile: float) -> int:
    share = np.cumsum(counts) / counts.sum()
    return int(np.searchsorted(share, percentile / 100) + 1)


def _by_error(counts: Counts) -> int:
    """Returns the end with the least squared error: rounding inside, cutting outside.

    Rounding to steps of size s costs s^2 / 12 on average, for numbers that spread over a step.
    """
    centres = np.arange(len(counts)) + 0.5
    ends = _ends(len(counts))
    inside = np.concatenate(([0], np.cumsum(counts)))[ends]
    rounding = inside * (ends / LEVELS) ** 2 / 12
    moments = [np.concatenate((np.cumsum((counts * m)[::-1])[::-1], [0]))[ends]
               for m in (np.ones_like(centres), centres, centres**2)]  # fmt: skip
    cutting = moments[2] - 2 * ends * moments[1] + ends**2 * moments[0]
    return int(ends[np.argmin(rounding + cutting)])


def _by_entropy(counts: Counts) -> int:
    """Returns the end whose integers tell most of the distribution (least KL divergence).

    The cut distribution, with what lies beyond its end added to the last bin, is compared with what
    is left of it when neighbouring bins share one integer (S. Migacz, "8-bit inference with
    TensorRT", GTC 2017). Bins that hold nothing stay empty. The first bin is left out: it holds the
    zeros of activations, which every choice keeps exactly.
    """
    counts = counts.copy()
    counts[0] = 0
    ends = _ends(len(counts))
    divergences = [_divergence(counts, int(end)) for end in ends]
    return int(ends[np.argmin(divergences)])


def _divergence(counts: Counts, end: int) -> float:
    kept = counts[:end].astype(np.float64)
    levels = np.arange(end) * (LEVELS + 1) // end
    filled = kept > 0
    totals = np.bincount(levels, kept, LEVELS + 1)
    sharers = np.bincount(levels, filled, LEVELS + 1)
    flattened = np.where(filled, totals[levels] / np.maximum(sharers[levels], 1), 0)
    kept[-1] += counts[end:].sum()
    if not filled.any():
        return np.inf
    # What is cut off may fall into a bin that was empty, which the integers say nothing about.
    p, q = kept[kept > 0], np.maximum(flattened[kept > 0], _ALMOST_NONE)
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def _ends(bins: int) -> NDArray[np.int64]:
    """The ends that are tried, in bins: no range has fewer bins than integers."""
    return np.arange(min(LEVELS + 1, bins), bins + 1, _SHIFTS)
