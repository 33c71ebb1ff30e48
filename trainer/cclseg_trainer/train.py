"""The training loop: read it from top to bottom.

A run lives in one folder: ``best.pt`` (the weight average with the best validation mIoU),
``last.pt`` (everything needed to resume), ``metrics.csv``, ``curves.png``, TensorBoard events and
``config.json``. Starting it again resumes where ``last.pt`` stands and ends with the weights of an
uninterrupted run.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cclseg.dataset import UNLABELLED
from cclseg.errors import InputError
from cclseg.evaluate import evaluate
from cclseg.files import make_folder, write_json
from cclseg.segmenter import Segmenter

from .backend import TorchBackend
from .checkpoint import Checkpoint, load_checkpoint
from .curves import plot_curves
from .distributed import join_ranks, naming_lost_processes
from .guards import TrainingError, advice_where_memory_ends, check_finite, check_same_run
from .losses import SegmentationLoss, class_weights
from .models import QuantizedNetwork, config_to_dict
from .prior import PriorTrial
from .run_data import fitted, open_sampler, spec_for
from .run_log import RunLog
from .schedule import StepClock, affordable_steps, learning_rate
from .start import check_quantized_origin, initial_network, pretrained_encoder
from .teachers import Teachers, load_teachers
from .temperature import best_temperature, with_temperature
from .weights import descend, freeze_norms, parameter_groups, to_device, update_average

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cclseg.dataset import DatasetFolder, Sample
    from cclseg.result import Segmentation
    from cclseg.spec import ModelSpec

    from .config import TrainConfig
    from .data import Batch, CropSampler
    from .distributed import Ranks
    from .models import ModelConfig

__all__ = ["SILENCE", "Progress", "TrainResult", "TrainingError", "train", "validate"]

logger = logging.getLogger(__name__)

_SAVE_EVERY = 50  # steps that a kill may cost
_CALIBRATION_BATCHES = 8


class Progress(Protocol):
    """Receives what happens during a run; the command line draws it."""

    def on_step(self, step: int, steps: int, loss: float) -> None:
        """A step is done."""

    def on_validation(self, step: int, report: dict[str, Any], *, is_best: bool) -> None:
        """A validation is done; ``report`` is that of ``cclseg val --json``, or of pretraining."""


class _Silence:
    """Tells nobody."""

    def on_step(self, step: int, steps: int, loss: float) -> None:
        pass

    def on_validation(self, step: int, report: dict[str, Any], *, is_best: bool) -> None:
        pass


SILENCE = _Silence()
"""Progress of a run that nobody watches."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended.

    Attributes:
        best: The checkpoint file with the best validation mIoU.
        step: The step it was taken at.
        report: Its validation figures.
    """

    best: Path
    step: int
    report: dict[str, Any]


@naming_lost_processes()
def train(
    dataset: DatasetFolder,
    model_config: ModelConfig,
    config: TrainConfig,
    folder: Path,
    *,
    start: Path | None = None,
    teachers: Sequence[Path] = (),
    progress: Progress = SILENCE,
) -> TrainResult:
    """Trains a network on the split "train" and chooses the best weights on "val".

    A quantised network keeps the weights whose scores are closest to those of its origin.

    Args:
        dataset: The data; checked as a whole first.
        model_config: The network; its classes and bands are set from the data.
        config: The recipe.
        folder: Folder of the run; resumed where it holds a ``last.pt`` of the same configuration.
        start: Checkpoint to begin from; weights whose shapes fit are taken over.
        teachers: Checkpoints whose soft labels, averaged, the network learns beside the true ones;
            a quantised network learns those of its origin where no other is given.
        progress: Told of every step and validation.

    Raises:
        DatasetError: Files of the data are broken; all are named.
        InputError: The recipe is one of pretraining, the folder holds a run of another
            configuration, or a teacher knows other classes or bands.
        TrainingError: The loss is not finite, and the batch is saved in the run's folder; or
            memory ran out.
        LostProcessError: One of several processes has ended.
    """
    ranks = join_ranks()
    run = open_run(dataset, model_config, config, ranks, start=start, teachers=teachers)
    log = RunLog(folder)
    last = folder / "last.pt"
    run.resume(last)
    if ranks.is_first:
        make_folder(folder)
        log.start(run.step)
        write_json(folder / "config.json", run.description())

    if config.quantize and run.step == 0:
        run.calibrate()
        run.validate(dataset, log, progress)  # what rounding costs without training
    clock = StepClock()
    for batch in run.sampler.batches(run.step):
        if run.step >= run.steps:
            break
        with advice_where_memory_ends(run.step, config):
            loss = run.train_step(batch, folder)
        if config.max_minutes and clock.is_ready(run.step):
            run.steps = ranks.told_by_first(lambda: affordable_steps(config, clock))
        if not ranks.is_first:
            continue  # and wait, within the next step, until the first process has validated
        log.write("loss", run.step, loss)
        log.write("lr", run.step, run.rate)
        progress.on_step(run.step, run.steps, loss)
        if run.step % config.val_every == 0 or run.step == run.steps:
            report = run.validate(dataset, log, progress)
            run.checkpoint(report, with_resume=True).save(last)
            plot_curves(folder / "metrics.csv", folder / "curves.png")
        elif run.step % _SAVE_EVERY == 0:
            run.checkpoint({}, with_resume=True).save(last)
            log.save()
    return ranks.told_by_first(lambda: _finished(run, dataset, log))


def open_run(
    dataset: DatasetFolder,
    model_config: ModelConfig,
    config: TrainConfig,
    ranks: Ranks,
    *,
    start: Path | None,
    teachers: Sequence[Path],
) -> Run:
    """Reads and checks everything before anything is written."""
    ranks.check(config)
    _check_learns_labels(config)
    learnt_from = ("train", UNLABELLED) if config.unlabelled_crops else ("train",)
    bands = dataset.check((*learnt_from, "val"))
    sampler = open_sampler(
        dataset,
        config,
        stride=model_config.output_stride,
        with_heights=model_config.height_head and not config.quantize,
        share=ranks.share,
    )
    model_config = fitted(
        dataclasses.replace(model_config, num_classes=len(dataset.class_names)),
        bands,
        sampler.normalisation,
    )
    origin = load_checkpoint(start) if start else None
    if config.quantize:
        spec = check_quantized_origin(origin, model_config, dataset.class_names).spec
    else:
        seen_before = origin.spec.trained_on if origin else ()
        spec = spec_for(dataset, model_config, sampler, seen_before=seen_before)
    taught_by = load_teachers(teachers, spec)
    if config.quantize and origin and not taught_by:
        taught_by = [origin]
    return Run(model_config, config, spec, sampler, origin=origin, taught_by=taught_by, ranks=ranks)


def _finished(run: Run, dataset: DatasetFolder, log: RunLog) -> TrainResult:
    """Gives the best weights what is chosen on "val" when training ends."""
    log.close()
    path = log.folder / "best.pt"
    best = run.settle_scores(load_checkpoint(path), dataset)
    best.save(path)
    return TrainResult(path, best.step, best.metrics)


def _check_learns_labels(config: TrainConfig) -> None:
    if config.hidden:
        raise InputError(
            f"the recipe is one of pretraining (hidden is {config.hidden}); pretrain by it: "
            "cclseg pretrain, or begin here from its weights: --start RUN/best.pt"
        )


class Run:
    """The moving parts of a run: weights, their average, the optimiser, and where they stand.

    Attributes:
        step: Optimiser steps done.
        steps: Steps planned.
        rate: Learning rate of the latest step.
        sampler: Makes the crops.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        spec: ModelSpec,
        sampler: CropSampler,
        *,
        origin: Checkpoint | None,
        taught_by: Sequence[Checkpoint],
        ranks: Ranks,
    ) -> None:
        self.step, self.steps, self.rate = 0, config.steps, 0.0
        self._best_score = -math.inf
        self._model_config, self._config, self._spec = model_config, config, spec
        self.sampler, self._ranks = sampler, ranks
        self._device = ranks.device
        torch.manual_seed(config.seed)
        self._model = to_device(initial_network(model_config, config, origin), self._device)
        self._encoder = pretrained_encoder(self._model, config)
        self._average = copy.deepcopy(self._model).eval()
        # A network that has been trained has the scores that validation chose: no second shift.
        self._class_weights = (
            torch.ones(len(spec.class_names))
            if config.quantize
            else class_weights(sampler.class_shares)
        )
        self._loss = SegmentationLoss(
            self._class_weights.to(self._device),
            ignore_index=spec.ignore_index,
            config=config.loss,
        )
        self._objective = ranks.objective(self._model, self._loss)
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self._model, config, has_pretrained_encoder=self._encoder is not None)
        )
        self._teachers = Teachers(taught_by, output_stride=spec.output_stride, device=self._device)

    def resume(self, path: Path) -> None:
        """Goes back to where an earlier start of the same run stopped, if there was one."""
        last = self._ranks.told_by_first(lambda: load_checkpoint(path) if path.exists() else None)
        if last is None:
            return
        check_same_run(last, self._model_config, self._config, path)
        self.step, self.steps = last.step, last.resume["steps"]
        self._best_score = last.resume["best_score"]
        self._model.load_state_dict(last.resume["model"])
        self._average.load_state_dict(last.weights)
        self._optimizer.load_state_dict(last.resume["optimizer"])
        self._loss.balance.resume(last.resume["balance"])
        logger.info("resuming %s at step %d of %d", path, self.step, self.steps)

    def description(self) -> dict[str, Any]:
        """Returns the whole configuration of the run."""
        model = config_to_dict(self._model_config)
        return {"model": model, "train": dataclasses.asdict(self._config)}

    def calibrate(self) -> None:
        """Lets a network that rounds see what it will meet, before a step is done."""
        assert isinstance(self._model, QuantizedNetwork)
        for step in range(_CALIBRATION_BATCHES):
            self._model.calibrate(self.sampler.batch(step).images.to(self._device))
        self._average.load_state_dict(self._model.state_dict())

    def train_step(self, batch: Batch, folder: Path) -> float:
        """Does one optimiser step and returns its loss."""
        loss = self.loss_of(batch)

        def learnt() -> dict[str, Tensor]:
            own = {"images": batch.images, "masks": batch.masks}
            on_device = {name: part.to(self._device) for name, part in own.items()}
            joint: dict[str, Tensor] = self._ranks.joint(on_device)
            return joint

        value = check_finite(loss, self.step, folder, learnt, is_saved=self._ranks.is_first)
        self.descend(loss, learning_rate(self.step, self.steps, self._config))
        return value

    def loss_of(self, batch: Batch) -> Tensor:
        """Returns the loss of the network in training mode, a scalar with gradients."""
        config = self._config
        torch.manual_seed(config.seed * 1_000_003 + self.step)  # dropout, the same after a resume
        self._model.train()
        if self._encoder:
            is_early = self.step < config.freeze_norm_share * self.steps
            freeze_norms(self._encoder, only_of_frozen_weights=not is_early)

        images = batch.images.to(self._device, memory_format=torch.channels_last)
        masks = self._labels(batch)
        segments, heights = (
            None if maps is None else maps.to(self._device)
            for maps in (batch.segments, batch.heights)
        )
        is_cuda = self._device.type == "cuda"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_cuda):
            teacher_logits = self._teachers.logits(images)
        loss: Tensor = self._objective(
            images, masks, teacher_logits, images=images, segments=segments, heights=heights
        )
        return loss

    def descend(self, loss: Tensor, rate: float) -> None:
        """Does one optimiser step down the gradient of a loss, at a learning rate."""
        self.rate = rate
        descend(loss, self._model, self._optimizer, rate=rate)
        decay = self._config.ema_decay
        update_average(self._average, self._model, step=self.step, decay=decay)
        self.step += 1

    @torch.no_grad()
    def _labels(self, batch: Batch) -> Tensor:
        """Returns the masks; the weight average labels crops without any where it is sure.

        A mean teacher (arXiv:1703.01780) that sees the crop as it is, while the network sees it
        changed in exposure and colour (FixMatch, arXiv:2001.07685).
        """
        masks = batch.masks.to(self._device)
        if batch.plain is None:
            return masks
        logits = self._average(batch.plain.to(self._device, memory_format=torch.channels_last))
        size = (masks.shape[-2], masks.shape[-1])
        enlarged = F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
        confidence, ids = enlarged.softmax(1).max(1)
        ids[confidence < self._config.sure] = self._spec.ignore_index
        masks[-len(ids) :] = ids
        return masks

    def validate(self, dataset: DatasetFolder, log: RunLog, progress: Progress) -> dict[str, Any]:
        """Measures the weight average on "val" and saves it where it is the best so far."""
        report = validate(self._average, self._spec, dataset, "val")
        score = -self._distance() if self._config.quantize else report["miou"]
        is_best = score is not None and score > self._best_score
        if is_best:
            self._best_score = score
            self.checkpoint(report, with_resume=False).save(log.folder / "best.pt")
        log.validation(self.step, report)
        progress.on_validation(self.step, report, is_best=is_best)
        return report

    @torch.no_grad()
    def _distance(self) -> float:
        """Returns the mean squared distance to the teachers' scores, on crops never trained on.

        What a quantised network must keep are the decisions of its origin. A few hundredths of
        mIoU more or less on "val" are chance where two classes nearly tie.
        """
        distances = []
        for step in range(self._config.steps, self._config.steps + _CALIBRATION_BATCHES):
            images = self.sampler.batch(step).images.to(self._device)
            taught = self._teachers.logits(images)
            assert taught is not None
            distances.append(F.mse_loss(self._average(images), taught).item())
        return float(np.mean(distances))

    def settle_scores(self, best: Checkpoint, dataset: DatasetFolder) -> Checkpoint:
        """Undoes what class weights did to the scores, and makes the confidence honest.

        Both as far as "val" gains from it, and both told by one run of the network over it.
        """
        if self._config.quantize:
            return best  # trained without class weights; keeps the confidence of its origin
        trial = PriorTrial(self._class_weights, self._spec)
        scored = []

        def keep(sample: Sample, result: Segmentation) -> None:
            trial.update(sample, result)
            scored.append((result.logits, sample.mask))

        network = to_device(best.build_trained(), self._device)
        validate(network, self._spec, dataset, "val", keep=keep)
        shift = trial.best_shift().numpy()[:, None, None]
        temperature = best_temperature(
            ((logits - shift, mask) for logits, mask in scored),
            stride=self._spec.output_stride,
            ignore_index=self._spec.ignore_index,
        )
        return with_temperature(trial.applied_to(best), temperature)

    def checkpoint(self, report: dict[str, Any], *, with_resume: bool) -> Checkpoint:
        """Returns the state of the run, with or without what only a resumed run needs."""
        resume = {
            "steps": self.steps,
            "best_score": self._best_score,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "balance": self._loss.balance.state(),
        }
        return Checkpoint(
            model_config=self._model_config,
            train_config=self._config,
            spec=self._spec,
            weights=self._average.state_dict(),
            step=self.step,
            metrics=report,
            resume=resume if with_resume else {},
        )


def validate(
    model: nn.Module,
    spec: ModelSpec,
    dataset: DatasetFolder,
    split: str,
    *,
    keep: Callable[[Sample, Segmentation], None] | None = None,
) -> dict[str, Any]:
    """Segments a split as the runtime would, tiles and blending included, and returns figures.

    Args:
        model: The network.
        spec: What it takes and gives.
        dataset: The data.
        split: Name of the split.
        keep: Called with each image and its result.
    """
    with Segmenter.from_backend(TorchBackend(model, spec)) as segmenter:
        return evaluate(segmenter, dataset, split, on_result=keep).report(spec.class_names)
