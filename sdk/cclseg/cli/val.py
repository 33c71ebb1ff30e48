"""The verb ``cclseg val``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import (
    STANDARD_OUTPUT,
    json_option,
    refine_option,
    tta_option,
    writable,
    write_report,
)

if TYPE_CHECKING:
    from ..metrics import ConfusionMatrix
    from ..refinement import Refine
    from ..symmetries import Tta


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--split", default="test", show_default=True, help="Split of the dataset folder.")
@click.option("--backend", default="auto", show_default=True, help="Library that runs the model.")
@click.option("--threads", type=int, help="Threads of the backend (default: all cores).")
@tta_option
@refine_option
@click.option(
    "--report",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=writable,
    metavar="FILE",
    help="Write a page with every figure and the images that went worst (.html).",
)
@json_option
def val(
    model: str,
    data: Path,
    split: str,
    backend: str,
    threads: int | None,
    tta: Tta,
    refine: Refine,
    page: Path | None,
    json_path: Path | None,
) -> None:
    """Measure the accuracy of MODEL on the dataset folder DATA.

    MODEL is a bundled name, a checkpoint or a model file. Every image is segmented at its full
    size, tiles and blending included, and all figures come from one confusion matrix; pixels
    with the ignore value count nowhere. --report shows them with the images that went worst,
    --json writes them with those of each image.
    """
    from rich.console import Console
    from rich.progress import Progress

    from ..dataset import open_dataset
    from ..evaluate import evaluate
    from ..files import write_bytes
    from ..segmenter import Segmenter
    from ..val_page import val_page
    from ..val_record import ValidationRecord

    dataset = open_dataset(data)
    record = ValidationRecord(len(dataset.class_names), ignore_index=dataset.ignore_index)
    dataset.check((split,))
    console = Console(stderr=True)
    with (
        Segmenter(model, backend=backend, threads=threads, tta=tta, refine=refine) as segmenter,
        Progress(console=console, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task(f"{segmenter.spec.name} on {split}", total=None)

        def on_image(done: int, total: int, matrix: ConfusionMatrix) -> None:
            text = f"{segmenter.spec.name} on {split}, mIoU {matrix.miou:.3f}"
            progress.update(task, completed=done, total=total, description=text)

        matrix = evaluate(segmenter, dataset, split, on_image=on_image, on_result=record.add)
        spec = segmenter.spec
    title = f"{spec.name} on {data.name}, split {split}"
    if tta != "none":
        title += f", averaged over {tta}"
    if refine != "off":
        title += f", refined ({refine})"
    report = matrix.report(spec.class_names) | record.to_json() | {"tta": tta, "refine": refine}
    if page:
        write_bytes(page, val_page(matrix, record, spec, title=title).encode())
    if json_path:
        write_report(report, json_path)
    if json_path != STANDARD_OUTPUT:
        _print_report(report, title=title)


def _print_report(report: dict, title: str) -> None:  # type: ignore[type-arg]
    """Prints a table of per-class figures and the means."""
    from rich.console import Console
    from rich.table import Table

    columns = ("iou", "precision", "recall", "f1")
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    for column in (*columns, "pixels"):
        table.add_column(column, justify="right")
    for name, figures in report["per_class"].items():
        values = (_figure(figures[column]) for column in columns)
        table.add_row(name, *values, f"{figures['pixels']:,}")
    table.add_section()
    table.add_row("mean", _figure(report["miou"]), "", "", _figure(report["macro_f1"]), "")
    console = Console()
    console.print(table)
    console.print(
        f"mIoU {_figure(report['miou'])}  accuracy {_figure(report['accuracy'])}  macro F1 "
        f"{_figure(report['macro_f1'])}  boundary F (2 px) {_figure(report['boundary_f'])}  "
        f"calibration error {_figure(report['calibration']['error'])}  images {report['images']}"
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
