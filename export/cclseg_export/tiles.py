"""Calibration tiles: real images cut to the network's input size.

Ranges measured on anything else are wrong without a sign of it, so what is no image of a scene is
refused: neighbouring pixels of photographs and rasters are alike, those of random numbers are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cclseg.dataset import open_dataset
from cclseg.errors import InputError
from cclseg.image_files import IMAGE_SUFFIXES, RASTER_SUFFIXES, read_image
from cclseg.sources.video import VIDEO_SUFFIXES, VideoSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from cclseg.dataset import DatasetFolder
    from cclseg.frame import FloatArray
    from cclseg.spec import ModelSpec

ADVISED_TILES = 32
"""With fewer tiles the report carries a warning."""

LEAST_LIKENESS = 0.35
"""Correlation of neighbouring pixels below which a tile is no image.

Photographs, orthophotos, satellite bands and radar have 0.66 and more; random numbers have 0, and
0.14 after the hardest JPEG compression.
"""

_FRAME_STEP = 10  # in a video of unknown length


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """What a network is calibrated on.

    Attributes:
        tiles: Network inputs, each (1, C, H, W) float32.
        images: Number of images or frames that they were cut from.
        warnings: What a reader of the report must know, in whole sentences.
    """

    tiles: Sequence[FloatArray]
    images: int
    warnings: tuple[str, ...]


def calibration_tiles(source: Path, spec: ModelSpec, *, most: int = 64) -> CalibrationSet:
    """Cuts tiles evenly from the images of a folder or the frames of a video.

    Args:
        source: A folder of images, a dataset folder, whose split "train" is used, or a video.
        spec: Input size, bands and normalisation.
        most: The largest number of tiles.

    Raises:
        InputError: No images, images of another band count or smaller than the input, or what
            they show is constant or random.
        SourceError: The video cannot be read.
    """
    count, images = _images(source, most)
    tiles = _cut(images, count, most, spec)
    _check_likeness(source, tiles)
    return CalibrationSet(tiles, count, tuple(_warnings(tiles)))


def unseen_tiles(
    dataset: DatasetFolder, split: str, spec: ModelSpec, *, most: int = 32
) -> list[FloatArray]:
    """Cuts tiles evenly from a split that a network did not learn; labels are not read.

    Args:
        dataset: Of images with the network's bands.
        split: Split of the data.
        spec: Input size, bands and normalisation.
        most: The largest number of tiles.

    Returns:
        Network inputs, each (1, C, H, W) float32; none where the images are smaller than that.
    """
    stems = dataset.stems(split)
    picked = np.linspace(0, len(stems) - 1, min(most, len(stems))).round().astype(int)
    images = {stems[i]: dataset.load_image(stems[i]) for i in picked}
    height, width = spec.input_hw
    large = {
        stem: image
        for stem, image in images.items()
        if image.shape[0] >= height and image.shape[1] >= width
    }
    return _cut(large.items(), len(large), most, spec)


def likeness(tile: FloatArray) -> float | None:
    """Returns how alike neighbouring pixels are: their correlation over the mean of all bands.

    Args:
        tile: (1, C, H, W).

    Returns:
        1 for the smoothest image, about 0 for random numbers; None for a constant one.
    """
    grey = tile[0].mean(axis=0, dtype=np.float64)
    grey -= grey.mean()
    variance = np.square(grey).mean()
    if variance <= 1e-12 * max(1.0, float(np.abs(tile).max()) ** 2):
        return None
    beside = (grey[:, 1:] * grey[:, :-1]).mean()
    below = (grey[1:] * grey[:-1]).mean()
    return float((beside + below) / (2 * variance))


def _cut(
    images: Iterable[tuple[str, NDArray[Any]]], count: int, most: int, spec: ModelSpec
) -> list[FloatArray]:
    """Cuts tiles from so many images by name, those with numbers that are not finite left out."""
    tiles: list[FloatArray] = []
    for index, (name, image) in enumerate(images):
        # Each image gets its share of the tiles, whole numbers that add up.
        share = (index + 1) * most // count - index * most // count
        corners = _corners(image, name, spec)
        chosen = np.linspace(0, len(corners) - 1, min(share, len(corners))).round().astype(int)
        cut = (_to_input(image, corners[i], spec) for i in chosen)
        tiles += [tile for tile in cut if np.isfinite(tile).all()]
    return tiles


def _images(source: Path, most: int) -> tuple[int, Iterator[tuple[str, NDArray[Any]]]]:
    """Returns the number of images and the images by name, bands in the network's order."""
    if source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES:
        return _frames(source, most)
    if not source.is_dir():
        raise InputError(
            f"{source} is no folder and no video; expected a folder of real images, a dataset "
            f"folder, or a video ({', '.join(sorted(VIDEO_SUFFIXES))})"
        )
    paths = _image_paths(source)
    if not paths:
        raise InputError(
            f"{source} holds no images; calibration needs real images "
            f"({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    picked = np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int)
    return len(picked), ((str(paths[i]), _in_network_order(paths[i])) for i in picked)


def _image_paths(folder: Path) -> list[Path]:
    if (folder / "splits.json").exists():
        dataset = open_dataset(folder)
        dataset.check(("train",))
        return [dataset.image_paths[stem] for stem in dataset.stems("train")]
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _in_network_order(path: Path) -> NDArray[Any]:
    image = read_image(path)
    swaps = image.shape[2] == 3 and path.suffix.lower() not in RASTER_SUFFIXES
    return image[:, :, ::-1] if swaps else image


def _frames(path: Path, most: int) -> tuple[int, Iterator[tuple[str, NDArray[Any]]]]:
    """Returns frames that lie evenly in a video, as red, green and blue."""
    with VideoSource(path) as video:
        total = video.total
    step = max(1, total // most) if total else _FRAME_STEP
    count = min(most, -(-total // step)) if total else most

    def frames() -> Iterator[tuple[str, NDArray[Any]]]:
        with VideoSource(path) as video:
            for frame in video:
                if frame.index >= count * step:
                    return
                if frame.index % step == 0:
                    yield f"{path} ({frame.name})", frame.image[:, :, ::-1]

    return count, frames()


def _corners(image: NDArray[Any], name: str, spec: ModelSpec) -> list[tuple[int, int]]:
    """Returns (top, left) of the tiles of a regular grid that lie wholly inside an image."""
    height, width = spec.input_hw
    if image.shape[2] != len(spec.bands):
        raise InputError(
            f"{name} has {image.shape[2]} bands, the model takes {len(spec.bands)} "
            f"({', '.join(spec.bands)}); calibrate with images of the same kind"
        )
    rows = range(0, image.shape[0] - height + 1, height)
    columns = range(0, image.shape[1] - width + 1, width)
    if not rows or not columns:
        raise InputError(
            f"{name} is {image.shape[1]} x {image.shape[0]} pixels, smaller than the input "
            f"{width} x {height}; calibrate with larger images"
        )
    return [(top, left) for top in rows for left in columns]


def _to_input(image: NDArray[Any], corner: tuple[int, int], spec: ModelSpec) -> FloatArray:
    top, left = corner
    height, width = spec.input_hw
    tile: FloatArray = image[top : top + height, left : left + width].astype(np.float32)
    tile -= np.asarray(spec.mean, np.float32)
    tile /= np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(tile.transpose(2, 0, 1)[None])


def _check_likeness(source: Path, tiles: Sequence[FloatArray]) -> None:
    """Refuses tiles of which most show nothing, or random numbers."""
    if not tiles:
        raise InputError(
            f"every tile of {source} holds values that are not numbers (no data); calibrate with "
            "images that are filled"
        )
    found = [value for value in map(likeness, tiles) if value is not None]
    if not found:
        raise InputError(
            f"all {len(tiles)} tiles of {source} are of one colour; calibrate with real images, "
            "whose ranges are those of the work to come"
        )
    middle = float(np.median(found))
    if middle < LEAST_LIKENESS:
        raise InputError(
            f"{source} looks like random numbers: neighbouring pixels correlate by {middle:.2f}, "
            f"those of real images by more than {LEAST_LIKENESS}; calibrate with real images"
        )


def _warnings(tiles: Sequence[FloatArray]) -> Iterator[str]:
    if len(tiles) < ADVISED_TILES:
        yield (
            f"Calibrated on {len(tiles)} tiles only; ranges settle with {ADVISED_TILES} or more "
            "tiles of different scenes."
        )
    constant = sum(likeness(tile) is None for tile in tiles)
    if 2 * constant > len(tiles):
        yield f"{constant} of {len(tiles)} calibration tiles are of one colour."
