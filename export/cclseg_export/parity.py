"""Compares files made from one network on labelled images, each on every backend of this machine.

A tolerance on logits says little, because a class flips where two scores nearly tie; what counts
is the accuracy per class, the share of pixels that agree, and the share that agree where the
floating-point network was sure.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cclseg.backends.choose import open_backend
from cclseg.metrics import ConfusionMatrix
from cclseg.segmenter import Segmenter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cclseg.dataset import DatasetFolder

SURE = 0.6
"""Confidence of the reference above which a pixel counts as away from a tie."""

_TIMED_RUNS = 30
_WARM_UP_RUNS = 3


@dataclass(slots=True)
class _Comparison:
    """Running counts of one candidate on one backend."""

    matrix: ConfusionMatrix
    pixels: int = 0
    agreeing: int = 0
    sure: int = 0
    sure_agreeing: int = 0
    latency_ms: list[float] = field(default_factory=list)


def compare(
    reference: Path,
    candidate: Path,
    dataset: DatasetFolder,
    split: str,
    *,
    backends: Sequence[str],
    threads: int | None = None,
) -> dict[str, Any]:
    """Measures a candidate file against its floating-point reference.

    Args:
        reference: fp32 ONNX file.
        candidate: The file in question, for instance INT8.
        dataset: Labelled images.
        split: Split of the data to measure on.
        backends: Names of the backends to measure on.
        threads: Threads of each backend.

    Returns:
        JSON-ready figures: per backend the mIoU of both files, the IoU lost per class in points,
        pixel agreement, agreement where the reference was sure, and the latency ratio.
    """
    return {
        "split": split,
        "images": len(dataset.stems(split)),
        "backends": {
            name: _compare_on((reference, candidate), dataset, split, backend=name, threads=threads)
            for name in backends
        },
    }


def worst_loss(parity: dict[str, Any]) -> tuple[float, str]:
    """Returns the largest IoU loss of any class on any backend, in points, and where it is."""
    losses = [
        (loss, f"{name} on {backend}")
        for backend, figures in parity["backends"].items()
        for name, loss in figures["iou_loss_points"].items()
        if loss is not None
    ]
    return max(losses)


def _compare_on(
    files: tuple[Path, Path],
    dataset: DatasetFolder,
    split: str,
    *,
    backend: str,
    threads: int | None,
) -> dict[str, Any]:
    classes = len(dataset.class_names)
    ignore = dataset.ignore_index
    with (
        Segmenter(files[0], backend=backend, threads=threads) as reference,
        Segmenter(files[1], backend=backend, threads=threads) as candidate,
    ):
        counts = [
            _Comparison(ConfusionMatrix(classes, ignore_index=ignore))
            for _ in (reference, candidate)
        ]
        for stem in dataset.stems(split):
            sample = dataset.load(stem)
            outputs = [s(sample.image, channels="bands") for s in (reference, candidate)]
            for count, output in zip(counts, outputs, strict=True):
                count.matrix.update(output.mask, sample.mask)
            same = outputs[0].mask == outputs[1].mask
            sure = outputs[0].confidence >= SURE
            counts[1].pixels += same.size
            counts[1].agreeing += int(same.sum())
            counts[1].sure += int(sure.sum())
            counts[1].sure_agreeing += int((same & sure).sum())
    _time_alternating(files, counts, backend=backend, threads=threads)
    before, after = counts
    return {
        "miou_reference": before.matrix.miou,
        "miou": after.matrix.miou,
        "iou": _by_class(dataset, after.matrix.iou),
        "iou_loss_points": _by_class(dataset, 100 * (before.matrix.iou - after.matrix.iou)),
        "agreement": after.agreeing / after.pixels,
        "agreement_where_sure": after.sure_agreeing / max(after.sure, 1),
        "latency_ratio": float(np.median(before.latency_ms) / np.median(after.latency_ms)),
    }


def _time_alternating(
    files: Sequence[Path], counts: Sequence[_Comparison], *, backend: str, threads: int | None
) -> None:
    """Times one network input on each file in turn, so that both see the same machine."""
    with ExitStack() as stack:
        networks = [
            stack.enter_context(open_backend(path, backend=backend, spec=None, threads=threads))
            for path in files
        ]
        spec = networks[0].spec
        images = np.zeros((1, len(spec.bands), *spec.input_hw), np.float32)
        for run in range(_WARM_UP_RUNS + _TIMED_RUNS):
            for network, count in zip(networks, counts, strict=True):
                start_ns = time.perf_counter_ns()
                network.infer(images)
                if run >= _WARM_UP_RUNS:
                    count.latency_ms.append((time.perf_counter_ns() - start_ns) / 1e6)


def _by_class(dataset: DatasetFolder, values: Any) -> dict[str, float | None]:  # noqa: ANN401
    return {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(dataset.class_names, values, strict=True)
    }
