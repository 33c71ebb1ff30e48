"""Images without labels, and crops of them of which parts are hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cclseg.dataset import UNLABELLED, load_image, open_dataset
from cclseg.errors import DatasetError, InputError
from cclseg.image_files import IMAGE_SUFFIXES

from .cutting import cut, pyramid
from .data import Normalisation, batched, photometric, prepared_ahead

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from .config import TrainConfig

CELL_PX = 32
"""Side of what is hidden as a whole: one place of the deepest map."""

_LISTED_PROBLEMS = 10


def find_images(sources: Sequence[Path]) -> list[Path]:
    """Returns the image files that are named by files, folders and dataset folders.

    Of a dataset folder these are the images of its splits "train" and "unlabelled".

    Raises:
        InputError: A source does not exist or holds no image.
        DatasetError: A dataset folder is malformed.
    """
    found: dict[Path, Path] = {}  # each file once, by the name it was given
    for source in sources:
        images = _images_of(source)
        if not images:
            raise InputError(
                f"{source} holds no images; expected files that end with "
                f"{', '.join(sorted(IMAGE_SUFFIXES))} (folders in it are not searched)"
            )
        found |= {path.resolve(): path for path in images}
    return list(found.values())


def _images_of(source: Path) -> list[Path]:
    if (source / "splits.json").exists():
        dataset = open_dataset(source)
        stems = [stem for split in ("train", UNLABELLED) for stem in dataset.splits.get(split, ())]
        missing = [stem for stem in stems if stem not in dataset.image_paths]
        if missing:
            raise InputError(
                f"{source / 'splits.json'} names images that are not there: {', '.join(missing)}"
            )
        if not stems:
            raise InputError(
                f"{source / 'splits.json'} names no images in the splits train and {UNLABELLED}; "
                "give the folder of the images itself to use all of them"
            )
        return [dataset.image_paths[stem] for stem in stems]
    if source.is_dir():
        files = sorted(source.iterdir())
        return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    return [source] if source.suffix.lower() in IMAGE_SUFFIXES else []


def read_images(paths: Sequence[Path], config: TrainConfig) -> list[NDArray[np.uint8]]:
    """Reads images of one kind, (H, W, C) each; all that is wrong is told at once.

    Raises:
        InputError: Images are unreadable, not 8-bit, of different bands, or smaller than a crop.
    """
    smallest = int(np.ceil(config.crop_px / config.augment.scale[1]))
    images: list[NDArray[np.uint8]] = []
    problems: list[str] = []
    for path in paths:
        try:
            image = load_image(path)
        except DatasetError as error:
            problems.append(str(error))
            continue
        problems += [f"{path} {problem}" for problem in _problems(image, images, smallest)]
        images.append(image)
    if problems:
        listing = "\n  ".join(problems[:_LISTED_PROBLEMS])
        raise InputError(
            f"{len(problems)} problems with {len(paths)} images:\n  {listing}\n"
            "repair these files or take them out"
        )
    return images


def _problems(image: NDArray[Any], others: Sequence[NDArray[Any]], smallest: int) -> Iterator[str]:
    height, width, bands = image.shape
    if image.dtype != np.uint8:
        yield f"is {image.dtype}; expected 8-bit images: scale the bands to 0..255"
    if others and others[0].shape[2] != bands:
        yield f"has {bands} bands; the first image has {others[0].shape[2]}"
    if min(height, width) < smallest:
        yield (
            f"is {width} x {height} pixels; crops of this size need at least {smallest} along each "
            "side: lower --crop"
        )


class HiddenBatch(NamedTuple):
    """The crops of one step.

    Attributes:
        images: (N, C, S, S) float32, normalised.
        hidden: (N, 1, S / 32, S / 32) bool: the squares that the network does not see.
    """

    images: Tensor
    hidden: Tensor


class HiddenCropSampler:
    """Draws crops from images in memory, and squares of them to hide.

    Crop ``index`` of step ``step`` depends on ``(seed, step, index)`` alone, as in training. Every
    pixel of every image is as likely to be in a crop as any other.

    Args:
        images: (H, W, C) each, of one kind.
        config: Crop size, seed, augmentation, and the share to hide.

    Attributes:
        normalisation: How raw values become network input.
        variance: (C,) of the network input over all images.
    """

    def __init__(self, images: Sequence[NDArray[np.uint8]], config: TrainConfig) -> None:
        self.normalisation = Normalisation.of(images)
        self._config = config
        self._levels = [pyramid(image, np.zeros(image.shape[:2], np.uint8)) for image in images]
        areas = np.array([image.shape[0] * image.shape[1] for image in images], np.float64)
        self._shares = areas / areas.sum()
        pixels = np.concatenate([image[::4, ::4].reshape(-1, image.shape[2]) for image in images])
        deviations = pixels.std(axis=0, dtype=np.float64) / np.array(self.normalisation.std)
        self.variance = (deviations**2).astype(np.float32)

    def crop(self, step: int, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Makes one crop: (C, S, S) float32 normalised, and (1, S / 32, S / 32) bool."""
        config = self._config
        rng = np.random.default_rng((config.seed, step, index))
        levels = self._levels[int(rng.choice(len(self._levels), p=self._shares))]
        height, width = levels[0][1].shape
        image, _ = cut(levels, (int(rng.integers(height)), int(rng.integers(width))), config, rng)
        values = image.astype(np.float32) / self.normalisation.value_range
        changed = photometric(values, config.augment, rng)
        cells = config.crop_px // CELL_PX
        count = max(1, round(config.hidden * cells * cells))
        hidden = rng.permutation(cells * cells) < count
        return self.normalisation.network_input(changed), hidden.reshape(1, cells, cells)

    def batch(self, step: int) -> HiddenBatch:
        """Makes the crops of one step."""
        crops = [self.crop(step, index) for index in range(self._config.batch_size)]
        return HiddenBatch(*(batched(parts) for parts in zip(*crops, strict=True)))

    def batches(self, first: int) -> Iterator[HiddenBatch]:
        """Yields the batches of step ``first`` and all later ones, one prepared ahead."""
        return prepared_ahead(self.batch, first)
