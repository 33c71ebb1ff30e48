"""Chooses the layers that stay in floating point on a validation split.

A trial has to write a mixture and segment the split with it on every backend for every target. The
backend that judged the first trial fastest is asked first, and where it says no, no other is.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cclseg.errors import InputError
from cclseg.segmenter import Segmenter

from .gate import installed_backends
from .int8 import Int8Writer, runnable_here, spread_evenly
from .mixed_precision import SearchResult, Trial, smallest_float_set
from .plan import quantizable_nodes
from .sensitivity import LayerCost, layer_costs, quantized_alone
from .to_onnx import attach_spec, save_model
from .validation import Validation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import onnx

    from cclseg.dataset import DatasetFolder

    from .targets import Target

    Progress = Callable[[str, int, int], None]

logger = logging.getLogger(__name__)

SEARCH_OVERLAP = 0.0
"""Share that neighbouring tiles have in common while searching: seams matter little there, and a
third of the tiles is saved."""

_RANKING_TILES = 2
"""Tiles for the ranking of layers; the order settles with few, the levels with more."""

_LAYERS_WITH_LABEL_COST = 6
"""Layers whose cost in mIoU alone is measured as well, the costliest first."""


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """Which layers stay in floating point, and why.

    Attributes:
        search: What was tried.
        always: Nodes that were asked to stay in floating point.
        costs: All other layers, the costliest first.
        miou_costs: Points of mIoU that a layer costs alone, for the costliest ones.
    """

    search: SearchResult
    always: tuple[str, ...] = ()
    costs: Sequence[LayerCost] = ()
    miou_costs: Mapping[str, float] = field(default_factory=dict)

    def reason(self, node: str) -> str:
        """Says why a node stays in floating point, in one clause."""
        if node in self.always:
            return "asked for with --keep-float"
        trial = self.search.needed.get(node)
        if trial is None:
            return "among the first to be kept; the time was up before it alone was tried in 8 bits"
        return f"in 8 bits too, {trial.place} is likely to lose {trial.loss_points:.2f} points"


@dataclass(slots=True)
class _Judge:
    """A backend that runs the files for a target.

    Attributes:
        target: What the file is written for.
        backend: Name of the backend.
        seconds: How long it last took to judge a mixture.
    """

    target: Target
    backend: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSearch:
    """Looks for few and fast layers in floating point that keep a validation split in its budget.

    The layers are ranked without labels, by error over time; labels of the validation split only
    say whether a mixture is good enough, and not by chance: see
    :class:`~cclseg_export.validation.Validation`. The split on which the gate measures is not
    looked at.

    Attributes:
        writer: Makes the files.
        open_reference: Opens what the files are compared with.
        targets: What files are made for; one choice of layers serves all of them.
        dataset: Labelled images.
        split: Validation split.
        budget_points: Most IoU that any class may lose, in points.
        threads: Threads of the backends, None for all processors.
        workspace: Folder for the files that are tried.
        on_progress: Called with (stage, done, total).
    """

    writer: Int8Writer
    open_reference: Callable[[], Segmenter]
    targets: Sequence[Target]
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

        Raises:
            InputError: No backend here runs files for these targets.
        """
        stop = time.monotonic() + seconds
        judges = self._judges()
        with self.open_reference() as reference:
            validation = Validation(reference, self.dataset, self.split, self.workspace)
        costs = self._costs(always)
        trials = 0

        def measure(kept: tuple[str, ...]) -> Trial:
            nonlocal trials
            trials += 1
            self.on_progress("search", trials, 0)
            trial = self._trial(kept, validation, judges, ask_all=trials == 1)
            logger.info("%d in float: %.2f in %s", len(kept), trial.loss_points, trial.place)
            judges.sort(key=lambda judge: judge.seconds)
            return trial

        found = smallest_float_set(
            {cost.node: cost.share for cost in costs},
            measure,
            slowdowns={cost.node: cost.slowdown for cost in costs},
            always=always,
            budget_points=self.budget_points,
            seconds=stop - time.monotonic(),
        )
        miou_costs = self._miou_costs(costs, validation, judges[0], stop)
        return LayerChoice(found, always, costs, miou_costs)

    def _judges(self) -> list[_Judge]:
        judges = [_Judge(t, name) for t in self.targets for name in installed_backends(t)]
        if not judges:
            raise InputError(
                f"no library on this machine runs files for {' and '.join(self.targets)}, so no "
                "layers can be searched; install one (cclseg doctor says which), or name the "
                "layers with --keep-float"
            )
        return judges

    def _costs(self, always: tuple[str, ...]) -> list[LayerCost]:
        writer = self.writer
        targets: dict[str, Target] = {
            node: target
            for target in reversed(self.targets)
            for node in quantizable_nodes(writer.model, target=target)
            if node not in always
        }
        return layer_costs(
            writer.model,
            writer.ranges,
            targets,
            spread_evenly(writer.tiles, _RANKING_TILES),
            on_layer=lambda done, total: self.on_progress("sensitivity", done, total),
        )

    def _trial(
        self,
        kept: tuple[str, ...],
        validation: Validation,
        judges: Sequence[_Judge],
        *,
        ask_all: bool,
    ) -> Trial:
        """Measures a mixture until a judge finds it over the budget, or all of them have spoken."""
        loss, place = -math.inf, "no class"
        for judge in judges:
            model = runnable_here(self.writer.write(judge.target, kept), judge.target)
            start = time.monotonic()
            with self._opened(model, judge.backend) as candidate:
                likely = validation.likely_losses(candidate)
            judge.seconds = time.monotonic() - start
            index = int(np.nanargmax(likely))
            if likely[index] > loss:
                loss = float(likely[index])
                place = f"{self.dataset.class_names[index]} on {judge.backend}"
            if loss > self.budget_points and not ask_all:
                break
        return Trial(kept, loss, place, loss <= self.budget_points)

    def _miou_costs(
        self, costs: Sequence[LayerCost], validation: Validation, judge: _Judge, stop: float
    ) -> dict[str, float]:
        """Measures in the time that is left what single layers cost on the validation split."""
        measured: dict[str, float] = {}
        first = costs[:_LAYERS_WITH_LABEL_COST]
        for done, cost in enumerate(first, start=1):
            if time.monotonic() >= stop:
                break
            alone = quantized_alone(self.writer.model, self.writer.ranges, cost.node, judge.target)
            attach_spec(alone, self.writer.spec)
            with self._opened(alone, judge.backend) as candidate:
                measured[cost.node] = validation.miou_loss(candidate)
            self.on_progress("cost in mIoU", done, len(first))
        return measured

    def _opened(self, model: onnx.ModelProto, backend: str) -> Segmenter:
        path = self.workspace / "trial.onnx"
        save_model(model, path)
        return Segmenter(path, backend=backend, overlap=SEARCH_OVERLAP, threads=self.threads)
