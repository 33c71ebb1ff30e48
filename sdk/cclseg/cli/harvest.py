"""Options of ``cclseg predict`` about frames that are worth labelling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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


def with_harvest(sink: Sink, frames: int | None, folder: Path) -> Sink:
    """Returns the sink, with a harvest of some frames into a folder where one is asked for."""
    if frames is None:
        return sink
    from ..harvest import Harvest, HarvestSink

    return HarvestSink(sink, Harvest(folder, frames=frames))
