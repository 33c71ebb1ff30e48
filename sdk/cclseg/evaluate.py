"""Accuracy of a segmenter on a labelled split: what ``cclseg val`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import InputError
from .metrics import ConfusionMatrix

if TYPE_CHECKING:
    from collections.abc import Callable

    from .dataset import DatasetFolder, Sample
    from .result import Segmentation
    from .segmenter import Segmenter
    from .spec import ModelSpec


def evaluate(
    segmenter: Segmenter,
    dataset: DatasetFolder,
    split: str,
    *,
    on_image: Callable[[int, int, ConfusionMatrix], None] | None = None,
    on_result: Callable[[Sample, Segmentation], None] | None = None,
) -> ConfusionMatrix:
    """Segments every image of a split at full size and counts the pixels against its masks.

    Args:
        segmenter: The model, with its tiles and blending as in production.
        dataset: Data whose class names are those of the model, in the same order.
        split: Name of the split.
        on_image: Called after each image with (done, total, matrix so far).
        on_result: Called with each image and its result, which it may keep.

    Returns:
        The accumulated confusion matrix of the split.

    Raises:
        InputError: The classes of model and data differ.
        DatasetError: A file cannot be read.
    """
    check_classes(segmenter.spec, dataset)
    matrix = ConfusionMatrix(len(dataset.class_names), ignore_index=dataset.ignore_index)
    stems = dataset.stems(split)
    for done, stem in enumerate(stems, start=1):
        sample = dataset.load(stem)
        result = segmenter(sample.image, channels="bands")
        matrix.update(result.mask, sample.mask)
        if on_result:
            on_result(sample, result)
        if on_image:
            on_image(done, len(stems), matrix)
    return matrix


def check_classes(spec: ModelSpec, dataset: DatasetFolder) -> None:
    """Raises InputError where model and data do not have the same classes in the same order."""
    if spec.class_names != dataset.class_names:
        raise InputError(
            f"the model '{spec.name}' knows the classes "
            f"{', '.join(spec.class_names)}; {dataset.root} has "
            f"{', '.join(dataset.class_names)}; they must be the same, in the same order"
        )
