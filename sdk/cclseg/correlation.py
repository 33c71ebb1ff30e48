"""The local cross-correlation: the definition that every other implementation must match.

Torch, ONNX, CPU and CUDA compute the same numbers, each by its own way; what the numbers are is
said here, in the plainest form, and computed in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .suggest import did_you_mean

Metric = Literal["ncc", "ssd", "sad"]

EPS = 1e-6
"""Smallest divisor under ``normalize``: a zero vector correlates with nothing."""

Maps = NDArray[np.floating[Any]]


def local_correlation(
    a: Maps,
    b: Maps,
    *,
    radius: int,
    dilation: int = 1,
    groups: int = 1,
    normalize: bool = False,
    metric: Metric = "ncc",
) -> Maps:
    """Compares each place of one map with a window of places of another.

    With K = (2R + 1)^2 lags and d = C / groups channels per group::

        out[n, g K + (dy + R)(2R + 1) + (dx + R), y, x]
            = (1 / d) sum_{c in group g} f(a[n, c, y, x], b[n, c, y + dy dilation, x + dx dilation])

    where f(u, v) is u v for "ncc", (u - v)^2 for "ssd" and abs(u - v) for "sad", and b is zero
    outside the map. With ``normalize`` the sum of products is divided by max(|a_g| |b_g|, 1e-6),
    the L2 norms of the two group vectors, instead of by d. Not-a-number and infinity follow the
    arithmetic of the formula; infinity times the zero outside the map is not a number.

    An implementation on int8 maps with scales computes this function of the scaled maps.

    Args:
        a: (N, C, H, W) float16, float32 or float64.
        b: (N, C, H, W), the type of ``a``.
        radius: Window radius R >= 0, in steps.
        dilation: Step between places of the window, in pixels.
        groups: Number of channel groups; divides C.
        normalize: Cosine similarity, in [-1, 1], instead of the mean of products.
        metric: What is averaged over the channels: products, squared or absolute differences.

    Returns:
        (N, groups * (2R + 1)^2, H, W), the type of ``a``.

    Raises:
        InputError: The maps differ, or an option does not fit them.

    Example:
        >>> a = np.ones((1, 8, 5, 5), np.float32)
        >>> local_correlation(a, a, radius=1)[0, :, 0, 0].tolist()
        [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    """
    _check_maps(a, b)
    check_window(a.shape[1], radius=radius, dilation=dilation, groups=groups)
    if metric not in get_args(Metric):
        raise InputError(f"no metric '{metric}'; {did_you_mean(metric, get_args(Metric))}")
    if normalize and metric != "ncc":
        raise InputError(f"got normalize with the metric '{metric}'; expected it with 'ncc' alone")
    n, c, h, w = a.shape
    depth, lags = c // groups, (2 * radius + 1) ** 2
    grouped = (n, groups, depth, h, w)
    left = a.astype(np.float64).reshape(grouped)
    right = b.astype(np.float64).reshape(grouped)
    out = np.empty((n, groups, lags, h, w))
    with np.errstate(invalid="ignore", over="ignore"):
        for lag, shifted in enumerate(_shifts(right, radius, dilation)):
            if metric == "ssd":
                out[:, :, lag] = ((left - shifted) ** 2).sum(2) / depth
            elif metric == "sad":
                out[:, :, lag] = np.abs(left - shifted).sum(2) / depth
            elif normalize:
                norms = np.sqrt((left**2).sum(2)) * np.sqrt((shifted**2).sum(2))
                out[:, :, lag] = (left * shifted).sum(2) / np.maximum(norms, EPS)
            else:
                out[:, :, lag] = (left * shifted).sum(2) / depth
        return out.reshape(n, groups * lags, h, w).astype(a.dtype)


def autocorrelation(
    a: Maps,
    *,
    radius: int,
    dilation: int = 1,
    groups: int = 1,
    normalize: bool = False,
    metric: Metric = "ncc",
) -> Maps:
    """Compares each place of a map with a window of places around it in the same map.

    The arguments, result and errors are those of :func:`local_correlation` with b = a.
    """
    return local_correlation(
        a, a, radius=radius, dilation=dilation, groups=groups, normalize=normalize, metric=metric
    )


def check_window(channels: int, *, radius: int, dilation: int, groups: int) -> None:
    """Refuses options that do not fit maps of so many channels.

    Raises:
        InputError: The radius is negative, the dilation or the number of groups is below 1, or
            the groups do not divide the channels.
    """
    if radius < 0:
        raise InputError(f"got radius {radius}; expected 0 or more")
    if dilation < 1:
        raise InputError(f"got dilation {dilation}; expected 1 or more")
    if groups < 1 or channels < 1 or channels % groups:
        raise InputError(
            f"got {groups} groups for {channels} channels; expected a number that divides them"
        )


def _check_maps(a: Maps, b: Maps) -> None:
    if a.ndim != 4 or a.shape != b.shape:
        raise InputError(f"got maps {a.shape} and {b.shape}; expected one shape (N, C, H, W)")
    if a.dtype != b.dtype or not np.issubdtype(a.dtype, np.floating):
        raise InputError(
            f"got maps of {a.dtype} and {b.dtype}; expected one floating type: convert them, "
            "and multiply integers by their scale"
        )


def _shifts(maps: NDArray[np.float64], radius: int, dilation: int) -> Iterator[NDArray[np.float64]]:
    """Yields ``maps`` (..., H, W) as seen from each lag, row by row; zero outside."""
    h, w = maps.shape[-2:]
    reach = radius * dilation
    border = [(0, 0)] * (maps.ndim - 2) + [(reach, reach)] * 2
    padded = np.pad(maps, border)
    for y in range(0, 2 * reach + 1, dilation):
        for x in range(0, 2 * reach + 1, dilation):
            yield padded[..., y : y + h, x : x + w]
