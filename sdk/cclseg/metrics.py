"""Accuracy of semantic segmentation from one accumulated confusion matrix, and its steadiness.

With true positives TP, false positives FP and false negatives FN of a class over all images:
precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN),
IoU = TP / (TP + FP + FN). Means over classes leave out classes that occur neither in the labels
nor in the predictions. Pixels with the ignore value count nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

if TYPE_CHECKING:
    from .frame import FloatArray, Mask

Counts = NDArray[np.int64]


class ConfusionMatrix:
    """Accumulates predictions against labels and turns the counts into figures.

    Attributes:
        counts: (K, K) int64; row = true class, column = predicted class.
        boundary: Accumulated boundary counts, see :class:`BoundaryScore`.

    Example:
        >>> matrix = ConfusionMatrix(2)
        >>> label = np.array([[0, 0], [1, 255]], np.uint8)
        >>> matrix.update(np.array([[0, 1], [1, 1]], np.uint8), label)
        >>> round(float(matrix.miou), 3)
        0.5
    """

    def __init__(self, num_classes: int, *, ignore_index: int = 255) -> None:
        self.counts: Counts = np.zeros((num_classes, num_classes), np.int64)
        self.boundary = BoundaryScore(ignore_index=ignore_index)
        self.images = 0
        self._ignore_index = ignore_index
        self._unanswered: Counts = np.zeros(num_classes, np.int64)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.counts)

    def update(self, mask: Mask, label: Mask) -> None:
        """Adds one image.

        Args:
            mask: (H, W) predicted class ids. An ignore value here, where the label has a class,
                counts as a miss of the true class.
            label: (H, W) true class ids or the ignore value.

        Raises:
            InputError: The sizes differ or an id is out of range.
        """
        if mask.shape != label.shape:
            raise InputError(f"the mask is {mask.shape}, the label {label.shape}; sizes must agree")
        classes = self.num_classes
        labelled = label != self._ignore_index
        truth, guess = label[labelled].astype(np.int64), mask[labelled].astype(np.int64)
        if truth.size and truth.max() >= classes:
            raise InputError(f"label id {truth.max()} is out of range; expected 0..{classes - 1}")
        answered = guess != self._ignore_index
        if answered.any() and guess[answered].max() >= classes:
            raise InputError(
                f"mask id {guess[answered].max()} is out of range; expected 0..{classes - 1}"
            )
        # An unanswered pixel falls into an extra column, which joins the row's misses.
        guess[~answered] = classes
        flat = np.bincount(truth * (classes + 1) + guess, minlength=classes * (classes + 1))
        table = flat.reshape(classes, classes + 1)
        self.counts += table[:, :classes]
        self._unanswered += table[:, classes]
        self.boundary.update(mask, label)
        self.images += 1

    @property
    def pixels(self) -> Counts:
        """(K,) labelled pixels of each class."""
        pixels: Counts = self.counts.sum(axis=1) + self._unanswered
        return pixels

    @property
    def iou(self) -> NDArray[np.float64]:
        """(K,) intersection over union; NaN for classes that occur nowhere."""
        hits = np.diag(self.counts)
        return _share(hits, self.pixels + self.counts.sum(axis=0) - hits)

    @property
    def precision(self) -> NDArray[np.float64]:
        """(K,) share of a class's predictions that are right; NaN where never predicted."""
        return _share(np.diag(self.counts), self.counts.sum(axis=0))

    @property
    def recall(self) -> NDArray[np.float64]:
        """(K,) share of a class's pixels that are found; NaN where it never occurs."""
        return _share(np.diag(self.counts), self.pixels)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(K,) harmonic mean of precision and recall; NaN for classes that occur nowhere."""
        hits = np.diag(self.counts)
        return _share(2 * hits, self.pixels + self.counts.sum(axis=0))

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur."""
        return _mean(self.iou)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur."""
        return _mean(self.f1)

    @property
    def accuracy(self) -> float:
        """Share of labelled pixels that are right."""
        return float(_share(np.trace(self.counts), self.pixels.sum()))

    def report(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Returns all figures as JSON-ready values; a figure that does not exist is None."""
        rows = zip(
            class_names, self.iou, self.precision, self.recall, self.f1, self.pixels, strict=True
        )
        return {
            "miou": _json(self.miou),
            "accuracy": _json(self.accuracy),
            "macro_f1": _json(self.macro_f1),
            "boundary_f": _json(self.boundary.f_score),
            "per_class": {
                name: {
                    "iou": _json(iou),
                    "precision": _json(precision),
                    "recall": _json(recall),
                    "f1": _json(f1),
                    "pixels": int(pixels),
                }
                for name, iou, precision, recall, f1, pixels in rows
            },
            "images": self.images,
            "pixels": int(self.pixels.sum()),
        }


class BoundaryScore:
    """F-measure of class boundaries with a tolerance, accumulated over images.

    A boundary pixel is one whose right or lower neighbour has another class, both labelled.
    Precision is the share of predicted boundary pixels with a true one within the tolerance,
    recall the share of true ones with a predicted one (Csurka et al., BMVC 2013, pooled over
    images and classes). Pixels within the tolerance of an ignored one do not count.

    Attributes:
        counts: (2, 2) int64; predicted and true boundary pixels, in the first column those near one
            of the other kind, in the second all.
    """

    def __init__(self, *, tolerance_px: int = 2, ignore_index: int = 255) -> None:
        self._tolerance_px = tolerance_px
        self._ignore_index = ignore_index
        self.counts: Counts = np.zeros((2, 2), np.int64)

    def update(self, mask: Mask, label: Mask) -> None:
        """Adds one image: (H, W) predicted and true class ids."""
        ignored = label == self._ignore_index
        usable = ~_dilated(ignored, self._tolerance_px + 1) if ignored.any() else ~ignored
        pairs = (_boundaries(mask), _boundaries(label))
        predicted, true = (boundary & usable for boundary in pairs)
        near_predicted, near_true = (_dilated(b, self._tolerance_px) for b in pairs)
        for row, boundary, near in ((0, predicted, near_true), (1, true, near_predicted)):
            self.counts[row] += (int((boundary & near).sum()), int(boundary.sum()))

    @property
    def f_score(self) -> float:
        """Harmonic mean of boundary precision and recall; NaN where there are no boundaries."""
        hits, totals = self.counts.T
        if not totals.any():
            return float("nan")
        if not hits.all():
            return 0.0
        precision, recall = hits / totals
        return float(2 * precision * recall / (precision + recall))


class TemporalConsistency:
    """How steady the masks of a moving camera are, accumulated over pairs of consecutive frames.

    The mask of the frame before is moved along with the ground, nearest pixel by nearest pixel, and
    compared with the new one where both see the same ground. A change of label is flicker, unless
    the labels, where they are known, say that the ground itself changed there.

    Example:
        >>> steadiness = TemporalConsistency(2)
        >>> still = np.eye(3)
        >>> mask = np.array([[0, 0, 1, 1]], np.uint8)
        >>> steadiness.update(mask, np.array([[0, 1, 1, 1]], np.uint8), still)
        >>> float(steadiness.flicker)
        0.25
    """

    def __init__(self, num_classes: int, *, ignore_index: int = 255) -> None:
        self.counts: Counts = np.zeros((num_classes, num_classes), np.int64)
        self.pairs = 0
        self._ignore_index = ignore_index
        self._changed = 0
        self._unchanging = 0

    def update(
        self,
        mask: Mask,
        previous: Mask,
        motion: NDArray[np.float64],
        *,
        labels: tuple[Mask, Mask] | None = None,
    ) -> None:
        """Adds a pair of frames.

        Args:
            mask: (H, W) predicted class ids of a frame.
            previous: (H, W) those of the frame before.
            motion: (3, 3) homography from pixels (x, y) of the frame to where the same ground was
                in the frame before.
            labels: (H, W) true class ids of the frame and of the one before.
        """
        places = _places_before(motion, mask.shape)
        moved = _taken(previous, places, self._ignore_index)
        seen = (moved != self._ignore_index) & (mask != self._ignore_index)
        classes = len(self.counts)
        flat = moved[seen].astype(np.int64) * classes + mask[seen]
        self.counts += np.bincount(flat, minlength=classes**2).reshape(classes, classes)
        if labels is not None:
            seen &= labels[0] == _taken(labels[1], places, self._ignore_index)
        self._changed += int((moved != mask)[seen].sum())
        self._unchanging += int(seen.sum())
        self.pairs += 1

    @property
    def miou(self) -> float:
        """Mean IoU between the masks and those before, over the classes that occur."""
        hits = np.diag(self.counts)
        return _mean(_share(hits, self.counts.sum(axis=0) + self.counts.sum(axis=1) - hits))

    @property
    def flicker(self) -> float:
        """Share of the unchanging ground that changed its label from one frame to the next."""
        return float(_share(self._changed, self._unchanging))

    def report(self) -> dict[str, Any]:
        """Returns all figures as JSON-ready values; a figure that does not exist is None."""
        return {
            "consistency_miou": _json(self.miou),
            "flicker": _json(self.flicker),
            "pairs": self.pairs,
        }


def _places_before(
    motion: NDArray[np.float64], size_hw: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Returns rows and columns of the nearest pixels before, and which of them exist."""
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    across, down, depth = (row[0] * x + row[1] * y + row[2] for row in np.asarray(motion))
    ahead = depth > 0
    depth = np.where(ahead, depth, 1)
    columns, rows = np.rint(across / depth), np.rint(down / depth)
    seen = ahead & (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    inside = (np.where(seen, places, 0).astype(np.intp) for places in (rows, columns))
    return next(inside), next(inside), seen


def _taken(
    mask: Mask,
    places: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]],
    ignore_index: int,
) -> Mask:
    """Returns a mask moved along, with the ignore value where nothing was seen."""
    rows, columns, seen = places
    return np.where(seen, mask[rows, columns], mask.dtype.type(ignore_index))


class Calibration:
    """Whether confidence tells how often a pixel is right.

    Pixels are put into bins of equal width by their confidence. The expected calibration error is
    the distance between accuracy and mean confidence of the bins, weighted by their pixels (Guo et
    al., arXiv:1706.04599): 0 where of the pixels at 80 % just 80 % are right.

    Example:
        >>> calibration = Calibration()
        >>> label = np.array([[0, 0, 0, 1]], np.uint8)
        >>> calibration.update(np.zeros((1, 4), np.uint8), np.full((1, 4), 0.9, np.float32), label)
        >>> round(calibration.error, 2)
        0.15
    """

    def __init__(self, *, bins: int = 15, ignore_index: int = 255) -> None:
        self._ignore_index = ignore_index
        self._pixels = np.zeros(bins, np.int64)
        self._right = np.zeros(bins, np.int64)
        self._confidence = np.zeros(bins, np.float64)

    def update(self, mask: Mask, confidence: FloatArray, label: Mask) -> None:
        """Adds one image.

        Args:
            mask: (H, W) predicted class ids.
            confidence: (H, W) float32 in [0, 1], probability of the predicted class.
            label: (H, W) true class ids or the ignore value.
        """
        counted = (label != self._ignore_index) & (mask != self._ignore_index)
        values = confidence[counted]
        bins = len(self._pixels)
        places = np.minimum((values * bins).astype(np.intp), bins - 1)
        right = mask[counted] == label[counted]
        self._pixels += np.bincount(places, minlength=bins)
        self._right += np.bincount(places[right], minlength=bins)
        self._confidence += np.bincount(places, weights=values, minlength=bins)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(bins,) share of right pixels; NaN for bins without a pixel."""
        return _share(self._right, self._pixels)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """(bins,) mean confidence; NaN for bins without a pixel."""
        return _share(self._confidence, self._pixels)

    @property
    def error(self) -> float:
        """Expected calibration error in 0..1; NaN where no pixel was counted."""
        if not self._pixels.any():
            return float("nan")
        gaps = np.abs(np.nan_to_num(self.accuracy - self.confidence))
        return float(gaps @ self._pixels / self._pixels.sum())

    def report(self) -> dict[str, Any]:
        """Returns the error and the bins as JSON-ready values."""
        return {
            "error": _json(self.error),
            "accuracy": [_json(value) for value in self.accuracy],
            "confidence": [_json(value) for value in self.confidence],
            "pixels": self._pixels.tolist(),
        }


def _boundaries(mask: Mask) -> NDArray[np.bool_]:
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    return edge


def _dilated(binary: NDArray[np.bool_], radius_px: int) -> NDArray[np.bool_]:
    """Grows a set of pixels by a disc, one shifted copy per offset and row of the disc."""
    height, width = binary.shape
    padded = np.pad(binary, radius_px)
    grown = np.zeros_like(binary)
    for dy in range(-radius_px, radius_px + 1):
        reach = int((radius_px**2 - dy**2) ** 0.5)
        for dx in range(-reach, reach + 1):
            top, left = radius_px + dy, radius_px + dx
            grown |= padded[top : top + height, left : left + width]
    return grown


def _share(part: Any, whole: Any) -> NDArray[np.float64]:  # noqa: ANN401 - scalars and arrays
    """Divides elementwise; NaN where the denominator is zero."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    shares: NDArray[np.float64] = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _json(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
