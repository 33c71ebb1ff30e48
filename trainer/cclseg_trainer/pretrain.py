"""Pretraining without labels: the network paints what is hidden of an image.

Squares of 32 pixels, half of each crop, are set to the mean colour, and the network predicts their
pixels from what surrounds them: masked image modelling (MAE, arXiv:2111.06377; SimMIM,
arXiv:2111.09886), in the form that suits convolutional networks: whole places of the deepest map
are hidden and maps of several sizes are supervised (SparK, arXiv:2301.03580), a plain mean colour
in place of what is hidden (arXiv:2205.13943).

Why this and not a contrastive method or a student of its own average (BYOL, VICRegL, PixPro): it
needs neither pairs, large batches nor a second network, so a CPU does it; a constant output is no
optimum, so nothing has to keep it from collapsing; it asks for every pixel, so the decoder learns
together with the encoder, which helps dense prediction most (arXiv:2205.11423); and it asks nothing
of the bands, so it works with any number of them, where most augmentations are made for colours.

A run lives in one folder as that of :mod:`~cclseg_trainer.train` does. Its ``best.pt`` holds the
weights of encoder and decoder without heads, for ``cclseg train --start``.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cclseg.errors import InputError
from cclseg.files import make_folder, write_json

from .checkpoint import Checkpoint, load_checkpoint
from .curves import plot_curves
from .guards import advice_where_memory_ends, check_finite, check_same_run
from .losses import unexplained_share
from .models import SegmentationNetwork, config_to_dict
from .models.network import TRAINING_HEADS
from .run_data import fitted, spec_without_classes
from .run_log import RunLog
from .schedule import StepClock, affordable_steps, learning_rate
from .start import initial_network, pretrained_encoder
from .train import SILENCE
from .unlabelled_data import HiddenCropSampler, find_images, read_images
from .weights import descend, freeze_norms, parameter_groups, to_device, update_average

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cclseg.spec import ModelSpec

    from .config import TrainConfig
    from .models import ModelConfig, NetworkOutput
    from .train import Progress
    from .unlabelled_data import HiddenBatch

logger = logging.getLogger(__name__)

_SAVE_EVERY = 50  # steps that a kill may cost
_MEASURED_BATCHES = 8
_COARSE_WEIGHT = 0.4  # as that of the auxiliary head in training


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """How a run ended.

    Attributes:
        best: The checkpoint file that leaves least unexplained.
        step: The step it was taken at.
        report: Its figures: "unexplained", "feature_std", "feature_dimensions".
    """

    best: Path
    step: int
    report: dict[str, Any]


def pretrain(
    sources: Sequence[Path],
    model_config: ModelConfig,
    config: TrainConfig,
    folder: Path,
    *,
    start: Path | None = None,
    progress: Progress = SILENCE,
) -> PretrainResult:
    """Trains a network on images without labels.

    Args:
        sources: Image files, folders of them, and dataset folders, of which the images of the
            splits "train" and "unlabelled" are taken.
        model_config: The network; its bands are set from the images.
        config: The recipe; see :data:`~cclseg_trainer.config.PRETRAINING_RECIPE`.
        folder: Folder of the run; resumed where it holds a ``last.pt`` of the same configuration.
        start: Checkpoint to begin from; weights whose shapes fit are taken over.
        progress: Told of every step and measurement.

    Raises:
        InputError: There are no images, they differ in kind or are too small, the recipe hides
            nothing, or the folder holds a run of another configuration.
        TrainingError: The loss is not finite, or memory ran out.
    """
    if not config.hidden:
        raise InputError("the recipe hides nothing; set hidden to a share of each crop, say 0.5")
    # Everything is read and checked before anything is written.
    images = read_images(find_images(sources), config)
    sampler = HiddenCropSampler(images, config)
    model_config = fitted(
        dataclasses.replace(model_config, height_head=False, tokens=0),
        images[0].shape[2],
        sampler.normalisation,
    )
    spec = spec_without_classes(
        model_config, sampler.normalisation, [source.resolve().name for source in sources]
    )
    origin = load_checkpoint(start) if start else None
    run = _Run(model_config, config, spec, sampler, origin=origin)
    log = RunLog(folder)
    last = folder / "last.pt"
    if last.exists():
        run.resume(load_checkpoint(last), last)
    make_folder(folder)
    log.start(run.step)
    description = {"model": config_to_dict(model_config), "train": dataclasses.asdict(config)}
    write_json(folder / "config.json", description)

    if run.step == 0:
        run.measure(log, progress)  # what the rest is compared with
    clock = StepClock()
    for batch in sampler.batches(run.step):
        if run.step >= run.steps:
            break
        with advice_where_memory_ends(run.step, config):
            loss = run.train_step(batch, folder)
        log.write("loss", run.step, loss)
        log.write("lr", run.step, run.rate)
        progress.on_step(run.step, run.steps, loss)
        if config.max_minutes and clock.is_ready(run.step):
            run.steps = affordable_steps(config, clock)
        if run.step % config.val_every == 0 or run.step == run.steps:
            report = run.measure(log, progress)
            run.checkpoint(report, with_resume=True).save(last)
            plot_curves(folder / "metrics.csv", folder / "curves.png")
        elif run.step % _SAVE_EVERY == 0:
            run.checkpoint({}, with_resume=True).save(last)
            log.save()
    log.close()
    best = load_checkpoint(folder / "best.pt")
    return PretrainResult(folder / "best.pt", best.step, best.metrics)


class _Run:
    """The moving parts of a run.

    The network is the one to be pretrained with other heads: in place of the scores of classes they
    give the pixels that each of their places stands for. So every architecture can be pretrained as
    it is.

    Attributes:
        step: Optimiser steps done.
        steps: Steps planned.
        rate: Learning rate of the latest step.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        spec: ModelSpec,
        sampler: HiddenCropSampler,
        *,
        origin: Checkpoint | None,
    ) -> None:
        self.step, self.steps, self.rate = 0, config.steps, 0.0
        self._least = math.inf
        self._model_config, self._config, self._spec = model_config, config, spec
        self._sampler, self._stride = sampler, model_config.output_stride
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._variance = torch.from_numpy(sampler.variance).to(self._device)
        torch.manual_seed(config.seed)
        painting = dataclasses.replace(
            model_config, num_classes=model_config.in_bands * self._stride**2
        )
        network = initial_network(painting, config, origin)
        assert isinstance(network, SegmentationNetwork)
        self._model = to_device(network, self._device)
        self._encoder = pretrained_encoder(self._model, config)
        self._average = copy.deepcopy(self._model).eval()
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self._model, config, has_pretrained_encoder=self._encoder is not None)
        )

    def resume(self, last: Checkpoint, path: Path) -> None:
        """Goes back to where an earlier start of the same run stopped."""
        check_same_run(last, self._model_config, self._config, path)
        self.step, self.steps = last.step, last.resume["steps"]
        self._least = last.resume["least"]
        self._model.load_state_dict(last.resume["model"])
        self._average.load_state_dict(last.resume["average"])
        self._optimizer.load_state_dict(last.resume["optimizer"])
        logger.info("resuming %s at step %d of %d", path, self.step, self.steps)

    def train_step(self, batch: HiddenBatch, folder: Path) -> float:
        """Does one optimiser step and returns its loss."""
        config = self._config
        torch.manual_seed(config.seed * 1_000_003 + self.step)  # dropout, the same after a resume
        self.rate = learning_rate(self.step, self.steps, config)
        self._model.train()
        if self._encoder:
            is_early = self.step < config.freeze_norm_share * self.steps
            freeze_norms(self._encoder, only_of_frozen_weights=not is_early)
        images, hidden = batch.images.to(self._device), batch.hidden.to(self._device)
        is_cuda = self._device.type == "cuda"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_cuda):
            output: NetworkOutput = self._model(_seen(images, hidden))
        loss = self._unexplained(output.logits, images, hidden)
        coarse = self._unexplained(output.coarse_logits, images, hidden)
        loss = loss + _COARSE_WEIGHT * coarse
        learnt = {"images": images, "hidden": hidden}
        value = check_finite(loss, self.step, folder, lambda: learnt)
        descend(loss, self._model, self._optimizer, rate=self.rate)
        update_average(self._average, self._model, step=self.step, decay=config.ema_decay)
        self.step += 1
        return value

    def _unexplained(self, scores: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        """Reads scores as pixels: (N, C s^2, h, w) -> (N, C, h s, w s)."""
        pixels = F.pixel_shuffle(scores.float(), self._stride)
        return unexplained_share(pixels, images, hidden, self._variance)

    @torch.no_grad()
    def measure(self, log: RunLog, progress: Progress) -> dict[str, Any]:
        """Measures the weight average on crops never trained on; saves it where it is the best."""
        shares, maps = [], []
        for step in range(self._config.steps, self._config.steps + _MEASURED_BATCHES):
            images, hidden = (part.to(self._device) for part in self._sampler.batch(step))
            shares.append(self._unexplained(self._average(_seen(images, hidden)), images, hidden))
            maps.append(self._average.encoded(images)[-1])
        report = {"unexplained": float(torch.stack(shares).mean())} | spread(torch.cat(maps))
        is_best = report["unexplained"] < self._least
        if is_best:
            self._least = report["unexplained"]
            self.checkpoint(report, with_resume=False).save(log.folder / "best.pt")
        for name, value in report.items():
            log.write(f"val/{name}", self.step, value)
        log.save()
        progress.on_validation(self.step, report, is_best=is_best)
        return report

    def checkpoint(self, report: dict[str, Any], *, with_resume: bool) -> Checkpoint:
        """Returns the state of the run, with or without what only a resumed run needs."""
        average = self._average.state_dict()
        heads = (f"head.{len(self._average.head) - 1}.", *(f"{name}." for name in TRAINING_HEADS))
        resume = {
            "steps": self.steps,
            "least": self._least,
            "model": self._model.state_dict(),
            "average": average,
            "optimizer": self._optimizer.state_dict(),
        }
        return Checkpoint(
            model_config=self._model_config,
            train_config=self._config,
            spec=self._spec,
            weights={n: value for n, value in average.items() if not n.startswith(heads)},
            step=self.step,
            metrics=report,
            resume=resume if with_resume else {},
        )


def spread(maps: Tensor) -> dict[str, float]:
    """Tells whether features have collapsed.

    Args:
        maps: (N, C, h, w) features of several crops.

    Returns:
        "feature_std": mean deviation of a channel over places and crops, 0 where all are alike.
        "feature_dimensions": ``(tr S)^2 / tr(S^2)`` of the covariance S of the channels, the number
        of directions that the features make use of: 1 where all lie on a line, at most C.
    """
    places = maps.float().movedim(1, -1).flatten(0, 2)  # (P, C)
    centred = places - places.mean(0)
    covariance = centred.T @ centred / len(centred)
    total = covariance.trace()
    dimensions = total**2 / covariance.square().sum().clamp_min(1e-12)
    deviations = covariance.diagonal().clamp_min(0).sqrt()
    return {"feature_std": float(deviations.mean()), "feature_dimensions": float(dimensions)}


def _seen(images: Tensor, hidden: Tensor) -> Tensor:
    """Sets what is hidden to 0, the mean of the normalisation."""
    size = (images.shape[-2], images.shape[-1])
    covered = F.interpolate(hidden.to(images), size, mode="nearest")
    return (images * (1 - covered)).contiguous(memory_format=torch.channels_last)
