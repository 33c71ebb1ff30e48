"""The report of a validation as one HTML page: what is right, what is wrong, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import __version__, report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .metrics import Calibration, ConfusionMatrix
    from .spec import ModelSpec
    from .val_record import ImageFigures, ValidationRecord

_HEADS = ("image", "label", "prediction", "errors")
_FEWEST_FOR_A_BIN = 0.001  # share of all pixels; a bin with fewer says nothing


def val_page(
    matrix: ConfusionMatrix, record: ValidationRecord, spec: ModelSpec, *, title: str
) -> str:
    """Builds the page.

    Args:
        matrix: The figures of all images together.
        record: What was noted of each of them.
        spec: Names and colours of the classes, and what the model says of itself.
        title: Names the model and the data.
    """
    figures = matrix.report(spec.class_names)
    return report.page(
        title,
        report.element("h1", title),
        report.element("p", _story(matrix, record), class_="lead"),
        report.tiles(
            {
                "mean IoU": figure(figures["miou"]),
                "of the labelled pixels are right": percent(figures["accuracy"]),
                "boundary F, within 2 pixels": figure(figures["boundary_f"]),
                "calibration error": figure(record.calibration.report()["error"]),
            }
        ),
        report.section("Classes", class_table(matrix, spec)),
        report.section("What is taken for what", confusion_table(matrix, spec), CONFUSION_NOTE),
        report.section(
            "The images that went worst",
            report.legend(spec.class_names, spec.palette),
            report.contact_sheet(_HEADS, _sheet_rows(record)),
            report.element("p", "Errors are red; blue has no label and counts nowhere."),
        ),
        report.section("Does confidence tell the truth?", *_calibration_plot(record.calibration)),
        report.section("Every image", _image_table(record.images)),
        report.element(
            "footer",
            f"Made by cclseg {__version__} from the model {spec.name} {spec.version}, "
            f"{spec.precision}.",
        ),
    )


CONFUSION_NOTE = report.element(
    "p", "Rows: the label. Columns: the share of its pixels that the model gives to each class."
)


def _story(matrix: ConfusionMatrix, record: ValidationRecord) -> str:
    pixels = int(matrix.pixels.sum())
    return (
        f"{matrix.images} images with {pixels / 1e6:.1f} million labelled pixels, each segmented "
        "at its full size. All figures of classes come from one confusion matrix over all images; "
        f"the mean over images is {figure(_mean_of_images(record.images))}."
    )


def _mean_of_images(images: Sequence[ImageFigures]) -> float | None:
    mious = [image.miou for image in images if image.miou is not None]
    return sum(mious) / len(mious) if mious else None


def class_table(matrix: ConfusionMatrix, spec: ModelSpec) -> report.Html:
    """Figures of each class, and their means."""
    figures = matrix.report(spec.class_names)
    total = max(1, figures["pixels"])
    rows = [
        (
            report.swatch(name, rgb),
            report.share_bar(row["iou"]),
            figure(row["precision"]),
            figure(row["recall"]),
            figure(row["f1"]),
            percent(row["pixels"] / total),
        )
        for (name, row), rgb in zip(figures["per_class"].items(), spec.palette, strict=True)
    ]
    return report.table(
        ("class", "IoU", "precision", "recall", "F1", "share of the pixels"),
        rows,
        total=("mean", report.share_bar(figures["miou"]), "", "", figure(figures["macro_f1"]), ""),
    )


def confusion_table(matrix: ConfusionMatrix, spec: ModelSpec) -> report.Html:
    """The matrix as shares of each class's pixels, shaded; see :data:`CONFUSION_NOTE`."""
    rows = []
    for name, rgb, counts, pixels in zip(
        spec.class_names, spec.palette, matrix.counts, matrix.pixels, strict=True
    ):
        shares = counts / pixels if pixels else np.full(len(counts), np.nan)
        rows.append((report.swatch(name, rgb), *(_shaded(float(share)) for share in shares)))
    return report.table(("", *spec.class_names), rows)


def _shaded(share: float) -> report.Html:
    """A share whose background says how large it is."""
    if np.isnan(share):
        return report.joined(["–"])
    strength = f"{100 * share**0.7 * 0.8:.0f}%"  # small confusions still show
    style = f"background:color-mix(in srgb, var(--accent) {strength}, transparent)"
    return report.element("span", f"{100 * share:.1f} %", class_="shade", style=style)


def _sheet_rows(record: ValidationRecord) -> list[tuple[report.Html, ...]]:
    scores = {image.stem: image.miou for image in record.images}
    rows = []
    for stem, panels in record.worst:
        captions = (stem, "label", f"mIoU {figure(scores[stem])}", "errors")
        rows.append(
            tuple(
                report.picture(
                    panel, f"{head} of {stem}", lossless=head in _HEADS[1:3], caption=caption
                )
                for panel, head, caption in zip(panels, _HEADS, captions, strict=True)
            )
        )
    return rows


def _calibration_plot(calibration: Calibration) -> tuple[report.Html, report.Html]:
    content = calibration.report()
    fewest = _FEWEST_FOR_A_BIN * sum(content["pixels"])
    bins = len(content["pixels"])
    shown = [
        accuracy if pixels > fewest else None
        for accuracy, pixels in zip(content["accuracy"], content["pixels"], strict=True)
    ]
    ideal = [(place + 0.5) / bins for place in range(bins)]
    plot = report.line_plot(
        (
            report.Series("share of pixels that are right", shown),
            report.Series("what confidence promises", ideal),
        ),
        x_label="confidence",
        x_step=1 / (bins - 1),
    )
    note = report.element(
        "p",
        "Below the promise the model is too sure of itself. The calibration error is the distance "
        "of the two lines, weighted by the pixels of each bin.",
    )
    return plot, note


def _image_table(images: Sequence[ImageFigures]) -> report.Html:
    def miou(image: ImageFigures) -> float:
        return 2.0 if image.miou is None else image.miou

    rows = [
        (
            image.stem,
            report.share_bar(image.miou),
            percent(image.accuracy),
            figure(image.boundary_f),
            percent(image.confidence),
            f"{image.pixels:,}",
        )
        for image in sorted(images, key=miou)
    ]
    columns = ("image", "mean IoU", "right", "boundary F", "confidence", "labelled pixels")
    return report.table(columns, rows)


def figure(value: float | None) -> str:
    """Writes a figure; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """Writes a share as percent; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f} %"
