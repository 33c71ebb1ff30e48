"""Compares many candidates with one reference on a labelled split, the reference run once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .likely import drift_losses, iou_of, likely_losses

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cclseg.dataset import DatasetFolder
    from cclseg.frame import Mask
    from cclseg.metrics import Counts
    from cclseg.segmenter import Segmenter

CONFIDENCE = 0.95
"""Share of other splits, drawn from the same images, that a loss must be likely to stay below."""


class Validation:
    """The answers of a reference on a split, and what candidates lose against them.

    Example:
        >>> validation = Validation(reference, dataset, "val", folder)  # doctest: +SKIP
        >>> validation.likely_losses(candidate).max()  # doctest: +SKIP
        0.31
    """

    def __init__(
        self, reference: Segmenter, dataset: DatasetFolder, split: str, folder: Path
    ) -> None:
        """Segments the split with the reference.

        Args:
            reference: What the candidates are compared with; may be closed afterwards.
            dataset: Labelled images whose classes are those of the networks.
            split: Split of the data.
            folder: Keeps the reference's masks as files, because a split may not fit the memory.
        """
        self._dataset = dataset
        self._stems = dataset.stems(split)
        self._folder = folder
        self._before = np.array([self._remembered(reference, stem) for stem in self._stems])
        self._iou = iou_of(self._before.sum(axis=0))

    def likely_losses(self, candidate: Segmenter) -> NDArray[np.float64]:
        """Returns what each class is likely to lose on other splits, in points (K,).

        By the labels, or by what the class would lose where its labels are less forgiving,
        whichever is more; NaN where a class occurs nowhere.
        """
        after, pairs = self._compared(candidate)
        by_labels = likely_losses(self._before, after, confidence=CONFIDENCE)
        return np.fmax(by_labels, drift_losses(pairs, self._iou))

    def miou_loss(self, candidate: Segmenter) -> float:
        """Returns how much mean IoU the candidate loses on this split, in points."""
        after, _ = self._compared(candidate)
        return 100 * float(np.nanmean(self._iou - iou_of(after.sum(axis=0))))

    def _remembered(self, reference: Segmenter, stem: str) -> Counts:
        sample = self._dataset.load(stem)
        mask = reference(sample.image, channels="bands").mask
        np.save(self._file(stem), mask)
        return self._table(sample.mask, mask)

    def _compared(self, candidate: Segmenter) -> tuple[Counts, Counts]:
        """Returns (N, K, K) counts by label, and by class of the reference, of the candidate."""
        by_label, by_reference = [], []
        for stem in self._stems:
            sample = self._dataset.load(stem)
            mask = candidate(sample.image, channels="bands").mask
            by_label.append(self._table(sample.mask, mask))
            by_reference.append(self._table(np.load(self._file(stem)), mask))
        return np.array(by_label), np.array(by_reference)

    def _table(self, rows: Mask, columns: Mask) -> Counts:
        """Counts pixels by two masks (K, K), those without a class in either of them left out."""
        classes = len(self._dataset.class_names)
        known = (rows < classes) & (columns < classes)
        pairs = rows[known].astype(np.int64) * classes + columns[known]
        return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    def _file(self, stem: str) -> Path:
        return self._folder / f"{self._stems.index(stem)}.reference.npy"
