"""What a run learns from, and what its network must know of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from cclseg.dataset import UNLABELLED
from cclseg.errors import InputError
from cclseg.spec import ModelSpec

from .bands import numbered_bands
from .data import CropSampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cclseg.dataset import DatasetFolder

    from .config import TrainConfig
    from .data import Normalisation
    from .model_config import ModelConfig


def open_sampler(
    dataset: DatasetFolder,
    config: TrainConfig,
    *,
    stride: int,
    with_heights: bool,
    share: slice = slice(None),
) -> CropSampler:
    """Reads the images to learn from.

    Args:
        dataset: The data.
        config: The recipe.
        stride: Output stride of the network.
        with_heights: Whether the network learns heights.
        share: Which crops of a step are those of this process.

    Raises:
        InputError: They are of a type that the runtime could not segment in the end, or heights
            are wanted and none is there.
    """
    samples = [dataset.load(stem, with_heights=with_heights) for stem in dataset.stems("train")]
    if with_heights and all(sample.heights is None for sample in samples):
        raise InputError(
            f"the network learns heights, {dataset.root} holds none; expected metres above ground "
            f"in {dataset.root / 'heights'}/<stem>.tif, or train without --height-head"
        )
    extra = dataset.stems(UNLABELLED) if config.unlabelled_crops else ()
    unlabelled = [dataset.load_image(stem) for stem in extra]
    images = {sample.stem: sample.image for sample in samples} | dict(
        zip(extra, unlabelled, strict=True)
    )
    for stem, image in images.items():
        if image.dtype != np.uint8:
            raise InputError(
                f"{dataset.image_paths[stem]} is {image.dtype}; this version trains "
                "on 8-bit images: scale the bands to 0..255"
            )
    return CropSampler(
        samples,
        dataset.class_names,
        ignore_index=dataset.ignore_index,
        config=config,
        unlabelled=unlabelled,
        stride=stride,
        share=share,
    )


def fitted(config: ModelConfig, bands: int, normalisation: Normalisation) -> ModelConfig:
    """Sets what a network must know of the images: the number of bands, and their units.

    Raises:
        InputError: The bands have fewer or more names than there are.
    """
    if config.band_names and len(config.band_names) != bands:
        raise InputError(
            f"the images have {bands} bands, {len(config.band_names)} names were given "
            f"({', '.join(config.band_names)}); name each band once, in order: --bands"
        )
    config = dataclasses.replace(config, in_bands=bands)
    if not config.indices:
        return config
    white = normalisation.value_range
    return dataclasses.replace(
        config,
        band_gain=tuple(std / white for std in normalisation.std),
        band_offset=tuple(mean / white for mean in normalisation.mean),
    )


def spec_without_classes(
    config: ModelConfig, normalisation: Normalisation, trained_on: Sequence[str]
) -> ModelSpec:
    """Returns what a network will say of itself that has learnt from images alone."""
    return ModelSpec(
        name=config.name,
        class_names=("none yet",),
        bands=_band_names(config),
        mean=normalisation.mean,
        std=normalisation.std,
        output_stride=config.output_stride,
        description=f"{config.name}, pretrained without labels",
        trained_on=tuple(trained_on),
    )


def _band_names(config: ModelConfig) -> tuple[str, ...]:
    """Returns the names that were given, else the usual ones."""
    usual = ("red", "green", "blue") if config.in_bands == 3 else numbered_bands(config.in_bands)
    return config.band_names or usual


def spec_for(
    dataset: DatasetFolder,
    config: ModelConfig,
    sampler: CropSampler,
    *,
    seen_before: Sequence[str] = (),
) -> ModelSpec:
    """Returns what a network will say of itself.

    Args:
        dataset: What it learns.
        config: The network, fitted to the data.
        sampler: Makes its crops.
        seen_before: Names of the data that the weights it begins with have seen.
    """
    trained_on = [*seen_before, dataset.root.resolve().name]
    if sampler.config.augment.virtual_share:
        trained_on.append("virtual flight")
    if sampler.config.pretrained and config.encoder in ("lite0", "lite2"):
        trained_on.insert(0, "ImageNet-1k (encoder)")
    return ModelSpec(
        name=config.name,
        class_names=dataset.class_names,
        palette=dataset.palette,
        bands=_band_names(config),
        mean=sampler.normalisation.mean,
        std=sampler.normalisation.std,
        output_stride=config.output_stride,
        ignore_index=dataset.ignore_index,
        description=f"{config.name} for {', '.join(dataset.class_names)}",
        trained_on=tuple(dict.fromkeys(trained_on)),
    )
