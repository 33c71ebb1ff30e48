"""Seeded noise fields.

Fields that decide about labels are made of numpy's elementwise additions and multiplications
alone, which round the same everywhere; a resize of an image library would not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""(H, W) float32."""


# From this length on, numpy is faster along cells than across them.
_LONG_CELL_PX = 16


def value_noise(rng: np.random.Generator, size_hw: tuple[int, int], cell_px: int) -> Field:
    """Interpolates random values on a square grid smoothly.

    Args:
        rng: Source of the grid values.
        size_hw: Height and width of the field in pixels.
        cell_px: Distance of grid points.

    Returns:
        (H, W) float32 in [-1, 1].
    """
    cell = max(1, cell_px)
    height, width = size_hw
    grid_hw = (height // cell + 2, width // cell + 2)
    grid = rng.random(grid_hw, dtype=np.float32) * np.float32(2) - np.float32(1)
    if cell == 1:
        return np.ascontiguousarray(grid[:height, :width])
    steps = np.arange(cell, dtype=np.float32) / np.float32(cell)
    fade = steps * steps * (np.float32(3) - np.float32(2) * steps)
    return _across(_down(grid, fade)[:height], fade)[:, :width]


def fractal_noise(
    rng: np.random.Generator,
    size_hw: tuple[int, int],
    cell_px: float,
    *,
    octaves: int = 4,
    gain: float = 0.5,
) -> Field:
    """Adds octaves of :func:`value_noise`, each of half the cell size and ``gain`` the height.

    Returns:
        (H, W) float32, about [-1, 1] with a standard deviation near 0.35.
    """
    total = np.zeros(size_hw, np.float32)
    amplitude = 1.0
    for octave in range(octaves):
        cell = round(cell_px / 2**octave)
        if cell < 1:
            break
        total += np.float32(amplitude) * value_noise(rng, size_hw, cell)
        amplitude *= gain
    return total


def grain(rng: np.random.Generator, size_hw: tuple[int, int], tile_px: int = 512) -> Field:
    """Repeats one tile of white noise over a field: (H, W) float32, standard deviation 1.

    For textures only: the repetition is invisible below other detail and saves most of the cost.
    """
    tile = rng.standard_normal((tile_px, tile_px), dtype=np.float32)
    height, width = size_hw
    repeats = (-(-height // tile_px), -(-width // tile_px))
    return np.tile(tile, repeats)[:height, :width]


def _down(grid: Field, fade: Field) -> Field:
    """Interpolates between rows: (n, m) to ((n - 1) * cell, m)."""
    rise = grid[1:] - grid[:-1]
    dense: Field = grid[:-1, None] + rise[:, None] * fade[None, :, None]
    return dense.reshape(-1, grid.shape[1])


def _across(rows: Field, fade: Field) -> Field:
    """Interpolates between columns: (n, m) to (n, (m - 1) * cell)."""
    start, rise = rows[:, :-1], rows[:, 1:] - rows[:, :-1]
    dense: Field = np.empty((*start.shape, len(fade)), np.float32)
    if len(fade) >= _LONG_CELL_PX:
        np.multiply(rise[:, :, None], fade, out=dense)
        dense += start[:, :, None]
    else:
        for index, share in enumerate(fade):
            dense[:, :, index] = start + rise * share
    return dense.reshape(len(rows), -1)
