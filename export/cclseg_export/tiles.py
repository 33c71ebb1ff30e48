"""Calibration tiles: real images cut to the network's input size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cclseg.dataset import open_dataset
from cclseg.errors import InputError
from cclseg.image_files import IMAGE_SUFFIXES, RASTER_SUFFIXES, read_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from cclseg.frame import FloatArray
    from cclseg.spec import ModelSpec


def calibration_tiles(source: Path, spec: ModelSpec, *, most: int = 64) -> list[FloatArray]:
    """Cuts tiles evenly from the images of a folder.

    Args:
        source: A folder of images, or a dataset folder, whose split "train" is used.
        spec: Input size, bands and normalisation.
        most: The largest number of tiles.

    Returns:
        Network inputs, each (1, C, H, W) float32.

    Raises:
        InputError: No images, or images of another band count or smaller than the input.
    """
    images = list(_images(source))
    if not images:
        raise InputError(
            f"{source} holds no images; calibration needs real images "
            f"({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    windows = [
        (path, image, top, left)
        for path, image in images
        for top, left in _corners(image, path, spec)
    ]
    chosen = np.linspace(0, len(windows) - 1, min(most, len(windows))).round().astype(int)
    return [_to_input(windows[i][1], windows[i][2:], spec) for i in chosen]


def _images(source: Path) -> Iterator[tuple[Path, NDArray[Any]]]:
    """Yields (path, image with bands in the network's order)."""
    if (source / "splits.json").exists():
        dataset = open_dataset(source)
        for stem in dataset.stems("train"):
            yield dataset.image_paths[stem], dataset.load(stem).image
        return
    if not source.is_dir():
        raise InputError(f"{source} is not a folder; expected a folder of real images")
    for path in sorted(source.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            image = read_image(path)
            swaps = image.shape[2] == 3 and path.suffix.lower() not in RASTER_SUFFIXES
            yield path, image[:, :, ::-1] if swaps else image


def _corners(image: NDArray[Any], path: Path, spec: ModelSpec) -> list[tuple[int, int]]:
    """Returns (top, left) of the tiles of a regular grid that lie wholly inside an image."""
    height, width = spec.input_hw
    if image.shape[2] != len(spec.bands):
        raise InputError(
            f"{path} has {image.shape[2]} bands, the model takes {len(spec.bands)} "
            f"({', '.join(spec.bands)}); calibrate with images of the same kind"
        )
    rows = range(0, image.shape[0] - height + 1, height)
    columns = range(0, image.shape[1] - width + 1, width)
    if not rows or not columns:
        raise InputError(
            f"{path} is {image.shape[1]} x {image.shape[0]} pixels, smaller than the input "
            f"{width} x {height}; calibrate with larger images"
        )
    return [(top, left) for top in rows for left in columns]


def _to_input(image: NDArray[Any], corner: tuple[int, ...], spec: ModelSpec) -> FloatArray:
    top, left = corner
    height, width = spec.input_hw
    tile: FloatArray = image[top : top + height, left : left + width].astype(np.float32)
    tile -= np.asarray(spec.mean, np.float32)
    tile /= np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(tile.transpose(2, 0, 1)[None])
