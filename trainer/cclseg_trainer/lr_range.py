"""The learning-rate range test (arXiv:1506.01186): which rate does a network learn with on data?

Within a hundred steps the rate grows exponentially, from one that changes nothing to one at which
learning breaks. Between the two the loss falls. A fifth of the rate at which it has nearly fallen
as far as it does is fast, and far enough from the edge for the thousands of steps of a run. Where
exactly it is lowest is chance: near the edge it goes up and down.
"""

from __future__ import annotations

import csv
import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib.figure
import numpy as np

from cclseg.files import make_folder, replacing

from .distributed import join_ranks, naming_lost_processes
from .train import TrainingError, open_run

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cclseg.dataset import DatasetFolder

    from .config import TrainConfig
    from .model_config import ModelConfig

logger = logging.getLogger(__name__)

STEPS = 100
_LOWEST, _HIGHEST = 1e-5, 10.0
_SMOOTHED_STEPS = 4.0  # standard deviation of the smoothing
_LATEST = 6  # steps that are compared with as many of the beginning
_BROKEN = 1.2  # times the loss of the beginning: norms and clipping keep it from growing at once
_LEAST_FALL = 0.02  # of the loss of the beginning
_NEARLY = 0.9  # of the whole fall
_SAFETY = 5


@dataclass(frozen=True, slots=True)
class RangeTest:
    """What a range test has found.

    Attributes:
        rates: (n,) learning rates, growing exponentially.
        losses: (n,) loss at each of them, before the step was done.
        smoothed: (n,) the losses without their noise.
        suggested: The rate to train with, rounded to two digits.
        edge: The lowest rate at which the smoothed loss has fallen by nine tenths of its fall.
        diverged: Whether learning broke before the highest rate.
    """

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    suggested: float
    edge: float
    diverged: bool


@naming_lost_processes()
def find_learning_rate(
    dataset: DatasetFolder,
    model_config: ModelConfig,
    config: TrainConfig,
    folder: Path,
    *,
    start: Path | None = None,
    teachers: Sequence[Path] = (),
) -> RangeTest:
    """Trains a fresh network with a growing rate, and writes ``lr_range.csv`` and ``.png``.

    Args:
        dataset: The data.
        model_config: The network.
        config: The recipe; its own rate and number of steps are not used.
        folder: Where the files go; a run that is there stays as it is.
        start: Checkpoint to begin from, as in training.
        teachers: Checkpoints whose soft labels are learnt, as in training.

    Raises:
        DatasetError: Files of the data are broken; all are named.
        TrainingError: The loss does not fall at any rate.
        LostProcessError: One of several processes has ended.
    """
    ranks = join_ranks()
    # Norms of a pretrained encoder learn from the first step, as in most of a run.
    config = dataclasses.replace(config, steps=STEPS, max_minutes=None, freeze_norm_share=0.0)
    run = open_run(dataset, model_config, config, ranks, start=start, teachers=teachers)
    rates = np.geomspace(_LOWEST, _HIGHEST, STEPS)
    losses: list[float] = []
    diverged = False
    for batch, rate in zip(run.sampler.batches(0), rates, strict=False):
        loss = run.loss_of(batch)
        diverged = has_diverged([*losses, loss.item()])
        if diverged:
            break
        losses.append(loss.item())
        run.descend(loss, float(rate))
        logger.info("step %d: rate %.2e, loss %.3f", len(losses), rate, losses[-1])
    found = evaluated(rates[: len(losses)], np.array(losses), diverged=diverged)
    if ranks.is_first:
        make_folder(folder)
        _write_csv(found, folder / "lr_range.csv")
        plot_range(found, folder / "lr_range.png")
    return found


def has_diverged(losses: Sequence[float]) -> bool:
    """Tells whether the latest loss is not finite, or most are above those of the beginning.

    Args:
        losses: All so far, in the order of the steps.
    """
    if not math.isfinite(losses[-1]):
        return True
    if len(losses) < 2 * _LATEST:
        return False
    return bool(np.median(losses[-_LATEST:]) > _BROKEN * np.median(losses[:_LATEST]))


def evaluated(
    rates: NDArray[np.float64], losses: NDArray[np.float64], *, diverged: bool
) -> RangeTest:
    """Smooths the losses and finds where they have fallen.

    Args:
        rates: (n,) learning rates, growing exponentially.
        losses: (n,) finite losses.
        diverged: Whether learning broke after them.

    Raises:
        TrainingError: They fall nowhere.
    """
    smoothed = _smoothed(losses)
    fall = smoothed[0] - smoothed.min()
    if fall < _LEAST_FALL * smoothed[0]:
        raise TrainingError(
            f"the loss falls at no rate from {rates[0]:.0e} to {rates[-1]:.0e}, it stays at "
            f"{smoothed[0]:.3g}; check that masks and images belong together, or begin with a "
            "network that is not trained yet: leave out --start"
        )
    edge = float(rates[(smoothed <= smoothed[0] - _NEARLY * fall).argmax()])
    suggested = float(f"{edge / _SAFETY:.1e}")
    return RangeTest(rates, losses, smoothed, suggested, edge, diverged)


def _smoothed(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """A Gaussian mean over neighbouring steps, without a lag; fewer of them at the ends."""
    steps = np.arange(len(losses))
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / _SMOOTHED_STEPS) ** 2)
    smoothed: NDArray[np.float64] = weights @ losses / weights.sum(1)
    return smoothed


def _write_csv(found: RangeTest, path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("rate", "loss", "smoothed"))
        writer.writerows(zip(found.rates, found.losses, found.smoothed, strict=True))


def plot_range(found: RangeTest, target: Path) -> None:
    """Draws loss over rate with the suggested rate into a PNG file."""
    figure = matplotlib.figure.Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, color="0.8", linewidth=0.9, label="loss of a batch")
    axes.plot(found.rates, found.smoothed, color="#2a6f97", linewidth=2, label="smoothed")
    for rate, colour, text in (
        (found.suggested, "#c8553d", f"--lr {found.suggested:g}"),
        (found.edge, "0.35", f"{_NEARLY:.0%} of the fall: {found.edge:.2g}"),
    ):
        height = float(np.interp(rate, found.rates, found.smoothed))
        axes.plot(rate, height, "o", color=colour, markersize=7)
        axes.annotate(
            text,
            (rate, height),
            (-10, -16),
            textcoords="offset points",
            ha="right",
            color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
        )
    low, high = float(found.smoothed.min()), float(found.smoothed[0])
    axes.set(
        xscale="log",
        xlabel="learning rate",
        ylabel="training loss",
        ylim=(max(0.0, low - 0.4 * (high - low)), high + 0.6 * (high - low)),
        title="learning-rate range test",
    )
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=110)
