"""Options of ``cclseg predict`` about frames that are worth labelling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError

if TYPE_CHECKING:
    from ..sinks import Sink


def harvest_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a verb."""
    number = click.option(
        "--harvest",
        type=click.IntRange(min=1),
        metavar="N",
        help="Keep the N frames most worth labelling.",
    )
    folder = click.option(
        "--harvest-to",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Dataset folder for them (default: named after SOURCE, here).",
    )
    return number(folder(verb))


def with_harvest(sink: Sink, frames: int | None, folder: Path | None, *, source: str) -> Sink:
    """Returns the sink, with a harvest where one is asked for.

    Args:
        sink: Where results go.
        frames: How many frames to keep, None for no harvest.
        folder: Where they are kept, None for a folder named after the source.
        source: Name of the source.

    Raises:
        InputError: There is a folder, and no number.
    """
    if frames is None:
        if folder is not None:
            raise InputError(f"--harvest-to {folder} keeps nothing without --harvest N; give both")
        return sink
    from ..harvest import Harvest, HarvestSink

    return HarvestSink(sink, Harvest(folder or f"{source}_harvest", frames=frames))
