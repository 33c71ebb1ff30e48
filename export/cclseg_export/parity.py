"""Compares networks made from one origin on labelled images, and times them against each other.

A tolerance on logits says little, because a class flips where two scores nearly tie; what counts
is the accuracy per class, the share of pixels that agree, and the share that agree where the
origin was sure.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cclseg.backends.choose import open_backend
from cclseg.errors import InputError
from cclseg.evaluate import check_classes
from cclseg.metrics import ConfusionMatrix
from cclseg.segmenter import Segmenter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cclseg.dataset import DatasetFolder, Sample
    from cclseg.frame import Mask

SURE = 0.6
"""Confidence of the reference above which a pixel counts as away from a tie."""

_TIMED_RUNS = 30
_WARM_UP_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Accuracy of one network beside that of its reference.

    Attributes:
        miou_reference: Mean IoU of the reference on the same images.
        miou: Mean IoU of the network.
        iou: IoU per class name; None where the class occurs nowhere.
        iou_loss_points: IoU that each class loses against the reference, in points
            (1 point = 0.01); negative where it gains.
        agreement: Share of pixels that get the same class, ignored ones included.
        agreement_where_sure: The same among pixels where the reference's confidence is at least
            :data:`SURE`; None where it is nowhere.
    """

    miou_reference: float
    miou: float
    iou: Mapping[str, float | None]
    iou_loss_points: Mapping[str, float | None]
    agreement: float
    agreement_where_sure: float | None

    @property
    def worst_loss(self) -> tuple[float, str]:
        """Returns the largest loss of any class in points, and the class."""
        losses = [(loss, name) for name, loss in self.iou_loss_points.items() if loss is not None]
        return max(losses, default=(0.0, "no class"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Time of one tile beside that of a reference, measured in turns.

    Attributes:
        ms: Median of the network.
        ratio: Median of reference / network over the turns: how many times as fast it is.
    """

    ms: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Compared:
    """One image through the reference and through every candidate.

    Attributes:
        done: Number of images compared so far, this one included.
        total: Number of images of the split.
        sample: The image with its label.
        expected: (H, W) class ids of the reference.
        found: (H, W) class ids of each candidate.
    """

    done: int
    total: int
    sample: Sample
    expected: Mask
    found: Sequence[Mask]


@dataclass(slots=True)
class _Agreement:
    """Running counts of pixels of one candidate."""

    pixels: int = 0
    same: int = 0
    sure: int = 0
    sure_same: int = 0

    def update(self, same: NDArray[np.bool_], sure: NDArray[np.bool_]) -> None:
        self.pixels += same.size
        self.same += int(same.sum())
        self.sure += int(sure.sum())
        self.sure_same += int((same & sure).sum())


def measure(
    reference: Segmenter,
    candidates: Sequence[Segmenter],
    dataset: DatasetFolder,
    split: str,
    *,
    on_image: Callable[[Compared], None] | None = None,
) -> list[Parity]:
    """Segments every image of a split with all networks and compares them with the reference.

    Args:
        reference: The floating-point origin.
        candidates: What was made from it.
        dataset: Labelled images whose classes are those of the networks.
        split: Split of the data to measure on.
        on_image: Called after each image.

    Returns:
        One result per candidate.

    Raises:
        InputError: The classes of a network and the data differ, or no pixel has a label.
        DatasetError: A file cannot be read.
    """
    for segmenter in (reference, *candidates):
        check_classes(segmenter.spec, dataset)
    classes, ignore = len(dataset.class_names), dataset.ignore_index
    matrices = [ConfusionMatrix(classes, ignore_index=ignore) for _ in range(1 + len(candidates))]
    agreements = [_Agreement() for _ in candidates]
    stems = dataset.stems(split)
    for done, stem in enumerate(stems, start=1):
        sample = dataset.load(stem)
        expected = reference(sample.image, channels="bands")
        sure = expected.confidence >= SURE
        found = [segmenter(sample.image, channels="bands").mask for segmenter in candidates]
        for matrix, mask in zip(matrices, (expected.mask, *found), strict=True):
            matrix.update(mask, sample.mask)
        for agreement, mask in zip(agreements, found, strict=True):
            agreement.update(mask == expected.mask, sure)
        if on_image:
            on_image(Compared(done, len(stems), sample, expected.mask, found))
    if not matrices[0].pixels.any():
        raise InputError(
            f"no pixel of the split '{split}' of {dataset.root} has a label; expected class ids in "
            "the masks, without which there is no accuracy to measure"
        )
    return [
        _parity(matrices[0], matrix, agreement, dataset.class_names)
        for matrix, agreement in zip(matrices[1:], agreements, strict=True)
    ]


def time_alternating(
    files: Sequence[Path], *, backend: str, threads: int | None = None
) -> list[Latency]:
    """Times one tile on each file in turn, so that all of them meet the same machine.

    Args:
        files: Model files; the first one is what ratios refer to.
        backend: Name of the backend that runs all of them.
        threads: Threads of one inference, None for all processors.

    Returns:
        One result per file.
    """
    with ExitStack() as stack:
        networks = [
            stack.enter_context(open_backend(path, backend=backend, threads=threads))
            for path in files
        ]
        spec = networks[0].spec
        images = np.zeros((1, len(spec.bands), *spec.input_hw), np.float32)
        times_ms = np.zeros((_WARM_UP_RUNS + _TIMED_RUNS, len(networks)))
        for turn in times_ms:
            for index, network in enumerate(networks):
                start_ns = time.perf_counter_ns()
                network.infer(images)
                turn[index] = (time.perf_counter_ns() - start_ns) / 1e6
    times_ms = times_ms[_WARM_UP_RUNS:]
    medians = np.median(times_ms, axis=0)
    ratios = np.median(times_ms[:, :1] / times_ms, axis=0)
    return [
        Latency(ms=float(ms), ratio=float(ratio)) for ms, ratio in zip(medians, ratios, strict=True)
    ]


def compare(
    reference: Path,
    candidate: Path,
    dataset: DatasetFolder,
    split: str,
    *,
    backends: Sequence[str],
    threads: int | None = None,
) -> dict[str, Any]:
    """Measures one file against another on the same backends, without a verdict.

    Args:
        reference: fp32 ONNX file.
        candidate: The file in question, for instance INT8.
        dataset: Labelled images.
        split: Split of the data to measure on.
        backends: Names of the backends to measure on.
        threads: Threads of each backend.

    Returns:
        JSON-ready figures per backend, as a model file carries them.
    """
    figures = {}
    for name in backends:
        with (
            Segmenter(reference, backend=name, threads=threads) as before,
            Segmenter(candidate, backend=name, threads=threads) as after,
        ):
            (parity,) = measure(before, [after], dataset, split)
        latency = time_alternating([reference, candidate], backend=name, threads=threads)[1]
        figures[name] = figures_of(parity, latency)
    return {"split": split, "images": len(dataset.stems(split)), "backends": figures}


def figures_of(parity: Parity, latency: Latency | None) -> dict[str, Any]:
    """Returns accuracy and time of one file on one backend, JSON-ready."""
    time_figures = {"latency_ms": latency.ms, "latency_ratio": latency.ratio} if latency else {}
    return asdict(parity) | time_figures


def _parity(
    before: ConfusionMatrix,
    after: ConfusionMatrix,
    agreement: _Agreement,
    class_names: tuple[str, ...],
) -> Parity:
    return Parity(
        miou_reference=before.miou,
        miou=after.miou,
        iou=_by_class(class_names, after.iou),
        iou_loss_points=_by_class(class_names, 100 * (before.iou - after.iou)),
        agreement=agreement.same / agreement.pixels,
        agreement_where_sure=agreement.sure_same / agreement.sure if agreement.sure else None,
    )


def _by_class(class_names: tuple[str, ...], values: Any) -> dict[str, float | None]:  # noqa: ANN401
    return {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(class_names, values, strict=True)
    }
