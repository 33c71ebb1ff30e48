"""The verb ``cclseg verify``. Light to import: the libraries are loaded when the verb runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cclseg.cli.options import STANDARD_OUTPUT, json_option, write_report

if TYPE_CHECKING:
    from .figures import Outcome
    from .job import Verification


@click.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--tolerance",
    "relative",
    type=click.FloatRange(min=0),
    default=1e-3,
    show_default=True,
    help="Largest difference of a layer, over its largest magnitude.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Largest difference of a layer in INT8, in its own steps.",
)
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    model: str,
    images: tuple[Path, ...],
    relative: float,
    steps: int,
    json_path: Path | None,
) -> None:
    """Run IMAGES through MODEL in every library, and say where they first differ.

    MODEL is a bundled name, an .onnx file or a checkpoint (.pt). Each layer gets the same input in
    every library, with and without the compiled operator; a correlation is also computed from its
    definition. The exit code is 1 where a layer differs beyond the tolerance, or where more than
    1 % of the places without near ties get another class.
    """
    from .figures import Tolerance
    from .job import verify_model

    tolerance = Tolerance(relative=relative, steps=steps)
    with _progress() as progress:
        result = verify_model(model, images, tolerance=tolerance, progress=progress)
    if json_path is not None:
        write_report(result.to_dict(), json_path)
    if json_path != STANDARD_OUTPUT:
        _print_result(result)
    ctx.exit(0 if result.agrees else 1)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on a terminal, and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("layer by layer", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_result(result: Verification) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from .figures import where_it_differs
    from .libraries import REFERENCE

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("", "layers", "worst layer", "whole", "same class", "where sure", ""):
        table.add_column(column, justify="left" if column == "" else "right", no_wrap=True)
    for outcome in result.comparison.outcomes.values():
        agrees = outcome.agrees(result.tolerance)
        verdict = Text("agrees" if agrees else "differs", style="green" if agrees else "bold red")
        table.add_row(*_figures(outcome), verdict)
    for name in result.absent:
        table.add_row(name, "-", "-", "-", "-", "-", Text("absent", style="yellow"))
    console = Console(highlight=False)
    console.print(f"{result.model.name} against {REFERENCE}:")
    console.print(table)
    for name, reason in result.absent.items():
        console.print(Text(f"{name}: {reason}", style="dim"), soft_wrap=True)
    names = [path.name for path in result.images]
    for outcome in result.comparison.outcomes.values():
        if not outcome.agrees(result.tolerance):
            console.print(Text(where_it_differs(outcome, names)), soft_wrap=True)


def _figures(outcome: Outcome) -> tuple[str, ...]:
    worst = outcome.worst
    layer = "-" if worst is None else worst.size
    error = "-" if outcome.logits_error is None else f"{outcome.logits_error:.1e}"
    shares = (outcome.agreement, outcome.agreement_where_sure)
    same = ("-" if share is None else f"{share:.2%}" for share in shares)
    return outcome.name, str(outcome.layers or "-"), layer, error, *same
