"""Accuracy against INT8 latency: every variant and every rival, trained by one recipe.

Usage: python benchmarks/rivals.py [DATA] [--models NAME ...] [--steps N] [--seeds N] [-o FILE]

All networks see the same crops in the same order, so they are compared by the seeds that all of
them have. Those on EfficientNet-Lite start from the same ImageNet weights, all others from random
ones. What a network loses in INT8 is measured, not repaired. The table and the plot with the Pareto
front lie beside the result file. The defaults are a campaign for a GPU or many days; --steps,
--crop and --seeds make it smaller, and --hours bounds it. Started again it goes on where it
stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.figure
import matplotlib.ticker
import numpy as np
from _campaign import (
    Candidate,
    add_campaign_arguments,
    measured,
    median_ms,
    recipe_of,
    timed,
    trials_of,
)
from _record import write_result
from _tile_latency import BACKENDS
from matplotlib.patheffects import withStroke

from cclseg.files import replacing, write_bytes
from cclseg_trainer.models import VARIANTS

_CONVERGED = 0.95  # of the final validation mIoU
_OWN, _PRETRAINED, _SCRATCH = "#c1121f", "#2a6f97", "0.55"
_NAME_WIDTH, _NAME_HEIGHT = 1.35, 0.015  # of a name in the plot: a factor of ms, and mIoU
_PRETRAINED_ENCODERS = ("lite0", "lite2")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_campaign_arguments(parser, work="runs/rivals")
    parser.add_argument("--models", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"rivals: nothing measured, there is no dataset folder {arguments.data}")
        return
    recipe = recipe_of(arguments)
    candidates = [Candidate(name, VARIANTS[name], recipe) for name in arguments.models]
    figures = measured(trials_of(candidates, arguments.seeds), arguments)
    times = timed(list(figures), arguments)
    entries = {
        name: times[name]
        | {
            "trials": trials,
            "encoder": VARIANTS[name].encoder,
            "parameters": trials[0]["parameters"],
            "macs": trials[0]["macs"],
        }
        for name, trials in figures.items()
    }
    target = write_result("rivals", {"networks": entries}, arguments.out)
    print(write_table(entries, target), target, sep="\n")


def write_table(entries: dict[str, Any], target: Path) -> str:
    """Writes the table and the plot beside the result file; returns the table."""
    table = "\n".join([*_table(entries), ""])
    write_bytes(target.with_suffix(".md"), table.encode())
    with replacing(target.with_suffix(".png")) as picture:
        _plot(entries).savefig(picture, dpi=120)
    return table


def pareto_front(points: dict[str, tuple[float, float]]) -> list[str]:
    """Returns the names that no other beats in both, by rising latency.

    Args:
        points: (latency, accuracy) by name.
    """
    front: list[str] = []
    for name in sorted(points, key=lambda n: (points[n][0], -points[n][1])):
        if not front or points[name][1] > points[front[-1]][1]:
            front.append(name)
    return front


def _common_seeds(entries: dict[str, Any]) -> set[int]:
    """Returns the seeds that every network was trained with."""
    seeds = ({trial["seed"] for trial in entry["trials"]} for entry in entries.values())
    return set.intersection(*seeds)


def _accuracies(entries: dict[str, Any]) -> dict[str, float]:
    """Returns the mean test mIoU over the common seeds, with what INT8 costs the first one."""
    common = _common_seeds(entries)
    found = {}
    for name, entry in entries.items():
        scores = [t["test"]["miou"] for t in entry["trials"] if t["seed"] in common]
        loss = entry["trials"][0]["test"]["miou"] - entry["int8"]["miou"]
        found[name] = float(np.mean(scores) - loss)
    return found


def _converged(trial: dict[str, Any]) -> dict[str, float] | None:
    """Returns the first validation with most of the accuracy of the last one.

    None where nobody saw it learn: with a single validation, or resumed behind its last step.
    """
    curve = trial["curve"]
    if len(curve) < 2:
        return None
    enough = _CONVERGED * (curve[-1]["miou"] or 0)
    return next(point for point in curve if (point["miou"] or 0) >= enough)


def _table(entries: dict[str, Any]) -> Iterator[str]:
    accuracies, common = _accuracies(entries), sorted(_common_seeds(entries))
    columns = [
        "network", "encoder", "seeds", "mIoU val", "test", "± between seeds",
        f"INT8, seeds {', '.join(map(str, common))}",
        "parameters, M", "GMAC", *(f"INT8 {name}, ms" for name in BACKENDS), "front",
        "95 % after, steps (s)",
    ]  # fmt: skip
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    front = _front(entries)
    for name in sorted(entries, key=lambda n: -accuracies[n]):
        entry = entries[name]
        scores = [trial["test"]["miou"] for trial in entry["trials"]]
        reached = [point for trial in entry["trials"] if (point := _converged(trial))]
        words = [
            name,
            entry["encoder"],
            str(len(scores)),
            f"{np.mean([trial['val']['miou'] for trial in entry['trials']]):.3f}",
            f"{np.mean(scores):.3f}",
            f"{np.std(scores, ddof=1):.3f}" if len(scores) > 1 else "",
            f"{accuracies[name]:.3f}",
            f"{entry['parameters'] / 1e6:.2f}",
            f"{entry['macs'] / 1e9:.2f}",
            *(f"{median_ms(entry, backend):.1f}" for backend in BACKENDS),
            "yes" if name in front else "",
            f"{np.mean([r['step'] for r in reached]):.0f} "
            f"({np.mean([r['trained_s'] for r in reached]):.0f})"
            if reached
            else "–",
        ]
        yield f"| {' | '.join(words)} |"


def _front(entries: dict[str, Any]) -> list[str]:
    accuracies = _accuracies(entries)
    return pareto_front({n: (_fastest_ms(e), accuracies[n]) for n, e in entries.items()})


def _fastest_ms(entry: dict[str, Any]) -> float:
    return min(median_ms(entry, backend) for backend in BACKENDS)


def _has_neighbour(places: dict[str, tuple[float, float]], name: str) -> bool:
    """Tells whether another point lies where the name of one would stand."""
    ms, accuracy = places[name]
    return any(
        1 < other_ms / ms < _NAME_WIDTH and abs(other - accuracy) < _NAME_HEIGHT
        for other_ms, other in places.values()
    )


def _plot(entries: dict[str, Any]) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    front, accuracies = _front(entries), _accuracies(entries)
    axes.step(
        [_fastest_ms(entries[name]) for name in front],
        [accuracies[name] for name in front],
        where="post", color=_OWN, alpha=0.35, linewidth=1.5, zorder=1,
    )  # fmt: skip
    places = {name: (_fastest_ms(entry), accuracies[name]) for name, entry in entries.items()}
    for name, entry in entries.items():
        is_own = name.startswith("ccl-")
        is_pretrained = entry["encoder"] in _PRETRAINED_ENCODERS
        place, is_crowded = places[name], _has_neighbour(places, name)
        colour = _OWN if is_own else _PRETRAINED if is_pretrained else _SCRATCH
        axes.scatter(
            *place, s=42, color=colour if is_pretrained else "white", edgecolor=colour, zorder=4
        )
        axes.annotate(
            name, place, xytext=(-6 if is_crowded else 6, 4), textcoords="offset points",
            ha="right" if is_crowded else "left", fontsize=8, color=colour,
            fontweight="bold" if is_own else "normal",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
    axes.set(
        xscale="log",
        xlabel="latency of a 512 x 512 tile in INT8, ms (the faster of ONNX Runtime and OpenVINO)",
        ylabel="mIoU on test, INT8",
    )
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
    axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set_title("filled: ImageNet encoder; open: random start; line: Pareto front", fontsize=9)
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
