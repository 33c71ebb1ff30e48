"""What a validation shows beside its confusion matrix: calibration, and each image by itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .metrics import Calibration, ConfusionMatrix
from .panels import coloured, marked, photograph, shrunk

if TYPE_CHECKING:
    from .dataset import Sample
    from .frame import Image
    from .result import Segmentation

_PANEL_PX = 300
_WORST = 8
_WRONG_BGR, _UNANSWERED_BGR = (60, 60, 230), (200, 120, 30)


@dataclass(frozen=True, slots=True)
class ImageFigures:
    """How one image went.

    Attributes:
        stem: Its name.
        miou: Mean IoU over the classes that occur in it; None where nothing is labelled.
        accuracy: Share of labelled pixels that are right.
        boundary_f: F-measure of the class boundaries with two pixels of tolerance.
        confidence: Mean confidence of its pixels.
        pixels: Labelled pixels.
    """

    stem: str
    miou: float | None
    accuracy: float | None
    boundary_f: float | None
    confidence: float
    pixels: int


class ValidationRecord:
    """Follows an evaluation; :meth:`add` is its ``on_result``.

    Attributes:
        calibration: Of all images.
        images: One entry per image, in their order.
        worst: Stem and pictures of the images with the lowest mean IoU, the worst first: image,
            label, prediction and error, (h, w, 3) uint8 BGR; no more than eight are held.

    Example:
        >>> record = ValidationRecord(5)
        >>> evaluate(segmenter, dataset, "test", on_result=record.add)  # doctest: +SKIP
        >>> min(record.images, key=lambda image: image.accuracy).stem  # doctest: +SKIP
        'tile6_part004'
    """

    def __init__(self, num_classes: int, *, ignore_index: int = 255) -> None:
        self._num_classes, self._ignore_index = num_classes, ignore_index
        self.calibration = Calibration(ignore_index=ignore_index)
        self.images: list[ImageFigures] = []
        self.worst: list[tuple[str, tuple[Image, ...]]] = []
        self._worst_mious: list[float] = []

    def add(self, sample: Sample, result: Segmentation) -> None:
        """Adds one image with its result."""
        alone = ConfusionMatrix(self._num_classes, ignore_index=self._ignore_index)
        alone.update(result.mask, sample.mask)
        self.calibration.update(result.mask, result.confidence, sample.mask)
        figures = alone.report(result.class_names)
        self.images.append(
            ImageFigures(
                stem=sample.stem,
                miou=figures["miou"],
                accuracy=figures["accuracy"],
                boundary_f=figures["boundary_f"],
                confidence=float(result.confidence.mean()),
                pixels=figures["pixels"],
            )
        )
        if figures["miou"] is not None:
            self._keep_if_bad(figures["miou"], sample, result)

    def to_json(self) -> dict[str, Any]:
        """Returns what ``cclseg val --json`` adds to the figures of the confusion matrix."""
        return {
            "calibration": self.calibration.report(),
            "per_image": [asdict(image) for image in self.images],
        }

    def _keep_if_bad(self, miou: float, sample: Sample, result: Segmentation) -> None:
        place = sum(kept <= miou for kept in self._worst_mious)
        if place < _WORST:
            self._worst_mious.insert(place, miou)
            self.worst.insert(place, (sample.stem, self._panels(sample, result)))
            del self._worst_mious[_WORST:], self.worst[_WORST:]

    def _panels(self, sample: Sample, result: Segmentation) -> tuple[Image, ...]:
        image = photograph(sample.image)
        labelled = sample.mask != self._ignore_index
        wrong = labelled & (result.mask != sample.mask)
        errors = marked(image, [(wrong, _WRONG_BGR), (~labelled, _UNANSWERED_BGR)])
        maps = (coloured(mask, result.palette) for mask in (sample.mask, result.mask))
        return (
            shrunk(image, _PANEL_PX),
            *(shrunk(each, _PANEL_PX, classes=True) for each in maps),
            shrunk(errors, _PANEL_PX),
        )
