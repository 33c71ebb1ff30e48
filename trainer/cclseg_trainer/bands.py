"""Images of many bands: OpenCV takes four at a time, and some have no names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_MOST = 4


def numbered_bands(count: int) -> tuple[str, ...]:
    """Names bands that nobody named: band1, band2 ..."""
    return tuple(f"band{i + 1}" for i in range(count))


def in_fours(image: NDArray[Any], change: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """Applies a function of OpenCV to at most four bands at a time.

    Args:
        image: (H, W, C).
        change: Takes (H, W, c) and returns (h, w, c), or (h, w) for one band.

    Returns:
        (h, w, C).
    """
    parts = []
    for first in range(0, image.shape[2], _MOST):
        part = change(np.ascontiguousarray(image[:, :, first : first + _MOST]))
        parts.append(part.reshape(*part.shape[:2], -1))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
