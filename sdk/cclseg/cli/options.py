"""Options that several verbs share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from ..files import write_json

STANDARD_OUTPUT = Path("-")


def writable(ctx: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Refuses a place that cannot be written to, before the work and not after it."""
    if path is None or path == STANDARD_OUTPUT or ctx.resilient_parsing:
        return path
    folder = path.absolute().parent
    if not folder.is_dir():
        raise click.BadParameter(f"there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise click.BadParameter(f"the folder {folder} is not writable; choose another place")
    return path


json_option = click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    callback=writable,
    metavar="FILE",
    help="Write the figures to FILE; - prints them instead of the text.",
)


tta_option = click.option(
    "--tta",
    type=click.Choice(["none", "flips", "d4"]),
    default="none",
    show_default=True,
    help="Test-time augmentation: average over flips (4 times the work) or all eight symmetries "
    "of the square (8 times).",
)


refine_option = click.option(
    "--refine",
    type=click.Choice(["off", "fast", "full"]),
    default="off",
    show_default=True,
    help="Sharpen masks along the edges of the image: where the network is unsure, at half the "
    "resolution, or every pixel.",
)


def write_report(content: Any, path: Path) -> None:  # noqa: ANN401 - whatever json accepts
    """Writes what a verb reports to the file of ``--json``, or prints it for "-"."""
    if path == STANDARD_OUTPUT:
        click.echo(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        write_json(path, content)
