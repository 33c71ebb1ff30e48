"""The verb ``cclseg ops``: compiles native operators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import click


class Progress(Protocol):
    """Called with what comes next and the number of steps behind it."""

    def __call__(self, step: str, left: int) -> None:
        """Shows one step."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def ops() -> None:
    """Compile the native code for what is on this machine.

    That is the correlation operator and what prepares frames; all runs without, only slower.
    """


@ops.command()
@click.option("--cpu", is_flag=True, help="For ONNX Runtime and OpenVINO; the default.")
@click.option("--tensorrt", is_flag=True, help="The plugin for TensorRT; needs nvcc and minutes.")
@click.option(
    "--arch",
    "architectures",
    type=int,
    multiple=True,
    help="Compute capability for the plugin, without the point (87 for Orin); may be repeated "
    "[default: this machine's devices, else all that nvcc knows].",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the libraries [default: $CCLSEG_NATIVE_DIR, else the user's cache folder].",
)
def build(cpu: bool, tensorrt: bool, architectures: tuple[int, ...], folder: Path | None) -> None:
    """Compile, and print the paths of the libraries, the plugin's last.

    The backends find libraries in the default folder by themselves, before what the package
    carries; for another folder set CCLSEG_NATIVE_DIR when they run.
    """
    from ..native_build_tensorrt import build_tensorrt
    from ..ops_build import build_cpu, native_folder

    if architectures and not tensorrt:
        raise click.UsageError("--arch is for the plugin; add --tensorrt")
    if cpu or not tensorrt:
        with _progress() as progress:
            libraries = build_cpu(folder, progress=progress)
        for path in libraries.values():
            click.echo(path)
    if tensorrt:
        click.echo(build_tensorrt(folder or native_folder(), architectures=architectures or None))


@contextmanager
def _progress() -> Iterator[Progress]:
    """Shows a bar on a terminal, and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling", total=None)
        total = 0

        def show(step: str, left: int) -> None:
            nonlocal total
            total = total or left + 1
            bar.update(task, description=step, total=total, completed=total - left - 1)

        yield show
