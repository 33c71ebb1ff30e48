"""The verb ``cclseg demo``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import STANDARD_OUTPUT, json_option, write_report

if TYPE_CHECKING:
    from ..demo import DemoResult


def _frame_hw(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    """Reads WIDTHxHEIGHT as (height, width)."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value.strip().lower())
    if match is None:
        raise click.BadParameter(f"'{value}' is no size; expected WIDTHxHEIGHT, such as 1280x720")
    return int(match[2]), int(match[1])


@click.command()
@click.option(
    "-o", "--out", "folder", type=click.Path(path_type=Path, file_okay=False), default="demo",
    show_default=True, help="Folder for overlay.mp4, masks/ and report.html.",
)  # fmt: skip
@click.option("--frames", type=click.IntRange(1), default=100, show_default=True)
@click.option(
    "--seed", type=click.IntRange(0), default=8, show_default=True, help="Another scene and path."
)
@click.option(
    "--size", "frame_hw", callback=_frame_hw, default="512x512", show_default=True,
    metavar="WIDTHxHEIGHT",    help="Width and height of a frame.",
)  # fmt: skip
@click.option(
    "-m", "--model", default="ccl-lite0", show_default=True, help="Bundled name or model file."
)
@json_option
def demo(
    folder: Path,
    frames: int,
    seed: int,
    frame_hw: tuple[int, int],
    model: str,
    json_path: Path | None,
) -> None:
    """Fly over a rendered scene, segment it, and measure against its exact truth.

    Needs no data: the scene, its truth and the flight are rendered from a seed. Writes a video
    with the classes laid over, the masks, and report.html; prints frames per second and mIoU.
    """
    from ..demo import REPORT_NAME, figures, run_demo
    from ..segmenter import Segmenter
    from ..virtual import VirtualFlight

    flight = VirtualFlight(seed, frames=frames, frame_hw=frame_hw)
    with Segmenter(model) as segmenter:
        with _Progress(frames) as progress:
            result = run_demo(segmenter, flight, folder, on_frame=progress.show)
        if json_path is not None:
            write_report(figures(result, segmenter, flight), json_path)
    if json_path != STANDARD_OUTPUT:
        click.echo(
            f"{result.fps:.1f} frames/s, mIoU {result.matrix.miou:.3f}, "
            f"{100 * result.matrix.accuracy:.1f} % of pixels right"
        )
        click.echo(f"report: {folder / REPORT_NAME}")


class _Progress:
    """A bar with ETA, frames per second and mIoU on a terminal; a line per tenth elsewhere."""

    def __init__(self, frames: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._frames = frames
        console = Console(stderr=True)
        self._line: Callable[[str], None] | None = (
            None if console.is_terminal else lambda text: click.echo(text, err=True)
        )
        self._bar = Progress(
            TextColumn("flying"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[live]}"),
            console=console,
            disable=self._line is not None,
        )
        self._task = self._bar.add_task("flying", total=frames, live="rendering the scene")

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int, result: DemoResult) -> None:
        """Shows how far the flight is."""
        live = f"{result.fps:.1f} frames/s  mIoU {result.matrix.miou:.3f}"
        self._bar.update(self._task, completed=done, live=live)
        tenth = max(1, self._frames // 10)
        if self._line is not None and (done % tenth == 0 or done == self._frames):
            self._line(f"frame {done}/{self._frames}  {live}")
