"""INT8 forms of one network, and the choice of the layers that stay in floating point."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cclseg.evaluate import evaluate
from cclseg.segmenter import Segmenter

from .calibrate import correct_bias
from .emit import emit
from .emulate import runnable_anywhere
from .gate import STAND_INS
from .mixed_precision import SearchResult, Trial, smallest_float_set
from .parity import iou_of, likely_losses
from .plan import quantizable_nodes
from .sensitivity import LayerCost, layer_costs, quantized_alone
from .to_onnx import attach_spec, save_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import onnx

    from cclseg.dataset import DatasetFolder
    from cclseg.frame import FloatArray
    from cclseg.metrics import Counts
    from cclseg.spec import ModelSpec

    from .calibrate import Ranges
    from .targets import Target

    Progress = Callable[[str, int, int], None]

CONFIDENCE = 0.95
"""Share of other validation splits, drawn from the same images, that must meet the budget too."""

_GUESS = 0.75
"""Share of the error whose layers in floating point are likely enough, tried first."""

_RANKING_TILES = 4
"""Tiles for the ranking of layers; the order settles with few, the levels with more."""

_LAYERS_WITH_LABEL_COST = 12
"""Layers whose cost in mIoU is measured as well, the costliest first."""


@dataclass(frozen=True, slots=True)
class Int8Writer:
    """Writes one network in INT8, for any target and with any layers in floating point.

    Attributes:
        model: The fp32 model.
        spec: What it says of itself.
        ranges: Of the calibration.
        tiles: Network inputs of the calibration, each (1, C, H, W) float32.
    """

    model: onnx.ModelProto
    spec: ModelSpec
    ranges: Ranges
    tiles: Sequence[FloatArray]

    def write(self, target: Target, kept: tuple[str, ...]) -> onnx.ModelProto:
        """Returns the quantised model with its spec.

        The logits' bias is corrected by the rounding errors of the CPU form for every target:
        all of them share one calibration, and that form runs everywhere.

        Args:
            target: Where it shall run.
            kept: Nodes that stay in floating point.
        """
        uncorrected = emit(self.model, self.ranges, target="cpu", keep_float=kept)
        corrected = correct_bias(self.model, uncorrected, list(self.tiles))
        quantized = emit(corrected, self.ranges, target=target, keep_float=kept)
        attach_spec(quantized, dataclasses.replace(self.spec, precision="int8"))
        return quantized


def runnable_here(model: onnx.ModelProto, target: Target) -> onnx.ModelProto:
    """Returns a model that computes the same without the plug-ins of its target."""
    return runnable_anywhere(model) if target in STAND_INS else model


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """Which layers stay in floating point, and why.

    Attributes:
        search: What was tried.
        costs: All layers, the costliest first.
        miou_costs: Points of mIoU that a layer costs alone, for the costliest ones.
    """

    search: SearchResult
    costs: Sequence[LayerCost] = ()
    miou_costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSearch:
    """Looks for the fewest layers in floating point that keep a validation split in its budget.

    The layers are ranked without labels; labels of the validation split only say whether a
    mixture is good enough, and not by chance: see :func:`~cclseg_export.parity.likely_losses`.
    The split on which the gate measures is not looked at.

    Attributes:
        writer: Makes the files.
        target: What the files are made for.
        backends: Backends on which the budget must hold.
        dataset: Labelled images.
        split: Validation split.
        budget_points: Most IoU that any class may lose, in points.
        threads: Threads of the backends, None for all processors.
        workspace: Folder for the files that are tried.
        on_progress: Called with (stage, done, total).
    """

    writer: Int8Writer
    target: Target
    backends: Sequence[str]
    dataset: DatasetFolder
    split: str
    budget_points: float
    threads: int | None
    workspace: Path
    on_progress: Progress

    def run(self, *, always: tuple[str, ...], seconds: float) -> LayerChoice:
        """Ranks the layers and searches.

        Args:
            always: Nodes that stay in floating point in any case.
            seconds: Time after which no further trial is begun.
        """
        stop = time.monotonic() + seconds
        before = self._counts(self.writer.model, self.backends[0])
        costs = self._costs(always)
        trials = 0

        def measure(kept: tuple[str, ...]) -> Trial:
            nonlocal trials
            trials += 1
            self.on_progress("search", trials, 0)
            return self._trial(kept, before)

        found = smallest_float_set(
            [cost.node for cost in costs],
            measure,
            always=always,
            first_guess=1 + int(np.searchsorted(np.cumsum([c.share for c in costs]), _GUESS)),
            seconds=stop - time.monotonic(),
        )
        return LayerChoice(found, costs, self._miou_costs(costs, before, stop))

    def _costs(self, always: tuple[str, ...]) -> list[LayerCost]:
        writer = self.writer
        picked = np.linspace(0, len(writer.tiles) - 1, _RANKING_TILES).round().astype(int)
        return layer_costs(
            writer.model,
            writer.ranges,
            [node for node in quantizable_nodes(writer.model) if node not in always],
            [writer.tiles[index] for index in sorted(set(picked))],
            on_layer=lambda done, total: self.on_progress("sensitivity", done, total),
        )

    def _trial(self, kept: tuple[str, ...], before: Counts) -> Trial:
        model = runnable_here(self.writer.write(self.target, kept), self.target)
        loss, place = -math.inf, "no class"
        for backend in self.backends:
            likely = likely_losses(before, self._counts(model, backend), confidence=CONFIDENCE)
            index = int(np.nanargmax(likely))
            if likely[index] > loss:
                loss, place = (
                    float(likely[index]),
                    f"{self.dataset.class_names[index]} on {backend}",
                )
        return Trial(kept, loss, place, loss <= self.budget_points)

    def _miou_costs(
        self, costs: Sequence[LayerCost], before: Counts, stop: float
    ) -> dict[str, float]:
        """Measures in the time that is left what single layers cost on the validation split."""
        measured: dict[str, float] = {}
        first = costs[:_LAYERS_WITH_LABEL_COST]
        for done, cost in enumerate(first, start=1):
            if time.monotonic() >= stop:
                break
            alone = quantized_alone(self.writer.model, self.writer.ranges, cost.node)
            attach_spec(alone, self.writer.spec)
            after = self._counts(alone, self.backends[0])
            losses = iou_of(before.sum(axis=0)) - iou_of(after.sum(axis=0))
            measured[cost.node] = 100 * float(np.nanmean(losses))
            self.on_progress("cost in mIoU", done, len(first))
        return measured

    def _counts(self, model: onnx.ModelProto, backend: str) -> Counts:
        """Returns the confusion counts of a model on each image of the split (N, K, K)."""
        path = self.workspace / "trial.onnx"
        save_model(model, path)
        totals: list[Counts] = []
        with Segmenter(path, backend=backend, threads=self.threads) as segmenter:
            evaluate(
                segmenter,
                self.dataset,
                self.split,
                on_image=lambda done, total, matrix: totals.append(matrix.counts.copy()),
            )
        return np.diff(totals, axis=0, prepend=np.zeros_like(totals[:1]))
