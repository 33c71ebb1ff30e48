"""Options that several verbs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..files import write_json

STANDARD_OUTPUT = Path("-")

json_option = click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write the figures to FILE; - prints them instead of the text.",
)


def write_report(content: Any, path: Path) -> None:  # noqa: ANN401 - whatever json accepts
    """Writes what a verb reports to the file of ``--json``, or prints it for "-"."""
    if path == STANDARD_OUTPUT:
        click.echo(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        write_json(path, content)
