"""The verb ``cclseg cross-validate``. Light to import: torch is loaded when the verb runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cclseg.cli.options import STANDARD_OUTPUT, json_option, write_report

from .cli import asked_for, train

if TYPE_CHECKING:
    from .cross_validation import CrossValidation
    from .folds import Fold
    from .train import Progress

_ITS_OWN = ("data", "run", "find_lr")  # parameters that training alone has
_OF_TRAINING = [parameter for parameter in train.params if parameter.name not in _ITS_OWN]


@click.command("cross-validate", params=_OF_TRAINING)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", "folder", type=click.Path(path_type=Path), required=True, help="Folder of all."
)
@click.option(
    "--groups",
    default="tile",
    show_default=True,
    metavar="tile|image|N|FILE",
    help="What is left out in turn: tiles, single images, one of N folds of whole tiles, or the "
    "groups of a .json file.",
)
@json_option
def cross_validate(
    data: Path, folder: Path, groups: str, json_path: Path | None, **options: Any
) -> None:
    """Train once without each group of images of DATA and measure on it.

    The images of one place look alike, so whole groups are left out: tiles, as groups.json in
    DATA lists them ({"name": [stems]}) or as the file names tell (tile7_part003 is of tile7).
    All labelled images take part, whatever split they stand in. Of the other groups, the ones
    that follow in turn, a fifth of the images, choose the weights; the rest is trained on.

    Every fold is a run in OUT/GROUP, with a page about the images that were left out.
    OUT/cross_validation.html and .json hold the figures of all: pooled in one confusion matrix,
    and mean and standard deviation over the folds. Started again, what is finished is kept and
    the rest resumes. The options are those of train, for each fold (--max-minutes too).
    """
    from cclseg.dataset import open_dataset
    from cclseg.files import write_bytes, write_json

    from .cross_validation import cross_validate as run_all
    from .cross_validation_page import cross_validation_page
    from .distributed import refuse_several
    from .folds import find_groups, plan_folds
    from .progress import TrainingDisplay

    refuse_several("cross-validation")
    model_config, config, files = asked_for(**options)
    dataset = open_dataset(data)
    folds = plan_folds(dataset, find_groups(dataset, groups))

    @contextmanager
    def watch(fold: Fold) -> Iterator[Progress]:
        counts = ", ".join(f"{split} {len(stems)}" for split, stems in fold.splits().items())
        click.echo(f"{fold.name} left out ({counts} images)", err=True)
        with TrainingDisplay() as display:
            yield display

    outcome = run_all(folds, model_config, config, folder, files=files, watch=watch)
    title = f"{outcome.spec.name}, cross-validated on {data.resolve().name}"
    write_json(folder / "cross_validation.json", outcome.to_json())
    page = cross_validation_page(outcome, title=title)
    write_bytes(folder / "cross_validation.html", page.encode())
    if json_path:
        write_report(outcome.to_json(), json_path)
    if json_path != STANDARD_OUTPUT:
        _print_outcome(outcome, title)
        click.echo(f"report: {folder / 'cross_validation.html'}")


def _print_outcome(outcome: CrossValidation, title: str) -> None:
    """Prints a line for each fold and the pooled figures."""
    from rich.console import Console
    from rich.table import Table

    from cclseg.val_page import figure

    from .cross_validation_page import mean_and_deviation

    figures = outcome.to_json()
    table = Table(title=title, title_justify="left")
    table.add_column("left out")
    for column in ("images", "mIoU", *outcome.spec.class_names):
        table.add_column(column, justify="right")
    for name, fold in (*figures["folds"].items(), ("pooled", figures["pooled"])):
        if name == "pooled":
            table.add_section()
        classes = (figure(one["iou"]) for one in fold["per_class"].values())
        table.add_row(name, str(fold["images"]), figure(fold["miou"]), *classes)
    console = Console()
    console.print(table)
    console.print(
        f"pooled mIoU {figure(figures['pooled']['miou'])}  mean over {len(figures['folds'])} folds "
        f"{mean_and_deviation(figures)}"
    )
