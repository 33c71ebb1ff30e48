"""The outcome of a cross-validation as one HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cclseg import __version__, report
from cclseg.val_page import CONFUSION_NOTE, class_table, confusion_table, figure, percent

from .cross_validation import PAGE_NAME

if TYPE_CHECKING:
    from .cross_validation import CrossValidation


def cross_validation_page(outcome: CrossValidation, *, title: str) -> str:
    """Builds the page; it links to those of the folds.

    Args:
        outcome: The figures.
        title: Names the network and the data.
    """
    figures, spec, pooled = outcome.to_json(), outcome.spec, outcome.pooled
    return report.page(
        title,
        report.element("h1", title),
        report.element("p", _story(figures), class_="lead"),
        report.tiles(
            {
                "mean IoU of all folds pooled": figure(figures["pooled"]["miou"]),
                "mean over folds ± deviation": mean_and_deviation(figures),
                "of the labelled pixels are right": percent(figures["pooled"]["accuracy"]),
                "boundary F, within 2 pixels": figure(figures["pooled"]["boundary_f"]),
            }
        ),
        report.section("Every group, as it was left out", _fold_table(figures), _FOLD_NOTE),
        report.section("Classes, pooled", class_table(pooled, spec)),
        report.section("What is taken for what", confusion_table(pooled, spec), CONFUSION_NOTE),
        report.element("footer", f"Made by cclseg {__version__}; the network is {spec.name}."),
    )


_FOLD_NOTE = report.element(
    "p",
    "IoU of each class. A dash stands where a class is neither in the labels nor in the "
    "prediction, a zero where the network claims a class that the group does not have; so the "
    "pooled figures, from the sum of all matrices, say more than the mean over groups.",
)


def _story(figures: dict[str, Any]) -> str:
    pooled = figures["pooled"]
    return (
        f"{len(figures['folds'])} trainings, each without one group of images and measured on it: "
        f"{pooled['images']} images with {pooled['pixels'] / 1e6:.1f} million labelled pixels in "
        "all, none of them known to the network that was asked."
    )


def _fold_table(figures: dict[str, Any]) -> report.Html:
    rows = [
        _row(report.element("a", name, href=f"{quote(name)}/{PAGE_NAME}"), fold)
        for name, fold in figures["folds"].items()
    ]
    columns = ("left out", "images", "mean IoU", *figures["per_class_iou"])
    return report.table(columns, rows, total=_row("pooled", figures["pooled"]))


def _row(name: report.Content, figures: dict[str, Any]) -> tuple[report.Content, ...]:
    classes = (figure(one["iou"]) for one in figures["per_class"].values())
    return (name, figures["images"], report.share_bar(figures["miou"]), *classes)


def mean_and_deviation(figures: dict[str, Any]) -> str:
    """Returns "0.512 ± 0.034" for the folds of a cross-validation."""
    return f"{figure(figures['mean_miou'])} ± {figure(figures['std_miou'])}"
