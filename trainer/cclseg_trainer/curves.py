"""Plots the figures of a training run."""

from __future__ import annotations

import csv
from collections import defaultdict
from typing import TYPE_CHECKING

import matplotlib.figure
import numpy as np

from cclseg.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

_SMOOTHED_POINTS = 25
_FEATURES = "val/feature_"


def plot_curves(metrics_csv: Path, target: Path) -> None:
    """Draws loss, validation means and per-class IoU over the steps into a PNG file.

    In place of the IoU, a run without labels has figures of its features.

    Args:
        metrics_csv: Rows of step, name, value as the trainer writes them.
        target: The picture.
    """
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with metrics_csv.open(newline="") as file:
        for row in csv.DictReader(file):
            series[row["name"]].append((int(row["step"]), float(row["value"])))

    figure = matplotlib.figure.Figure(figsize=(13, 3.8), layout="constrained")
    loss_axes, mean_axes, class_axes = figure.subplots(1, 3)
    steps, losses = np.array(series["loss"]).T
    window = max(1, min(_SMOOTHED_POINTS, len(losses) // 4))
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    loss_axes.plot(steps, losses, color="0.85", linewidth=0.8)
    loss_axes.plot(steps[window - 1 :], smooth, color="#2a6f97", linewidth=1.6)
    loss_axes.set(title="training loss", ylim=(0, float(np.percentile(losses, 99)) * 1.1))
    for name, points in sorted(series.items()):
        if not name.startswith("val/"):
            continue
        axes = class_axes if name.startswith(("val/iou/", _FEATURES)) else mean_axes
        label = name.removeprefix("val/").removeprefix("iou/")
        axes.plot(*zip(*points, strict=True), marker=".", label=label)
    mean_axes.set(title="validation", ylim=(0, 1))
    if any(name.startswith(_FEATURES) for name in series):
        class_axes.set(title="features", ylim=(0, None))
    else:
        class_axes.set(title="validation IoU per class", ylim=(0, 1))
    for axes in (loss_axes, mean_axes, class_axes):
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (mean_axes, class_axes):
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=110)
