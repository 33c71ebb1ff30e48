"""The verb ``cclseg build``. Light to import: the libraries are loaded when the verb runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from cclseg.cli.options import STANDARD_OUTPUT, json_option, write_report

from .options import BuildOptions, Target, parse_bytes, parse_shape

if TYPE_CHECKING:
    from .build import BuiltEngine
    from .supervise import OnProgress

_WARNINGS_SHOWN = 3
_LEVELS = ("none", "ampere-plus", "same-compute-capability")
_SHAPE = "shape such as 4x3x512x512, or images:4x3x512x512; repeatable"


def _bytes(ctx: click.Context, option: click.Parameter, text: str | None) -> int | None:
    return None if text is None else _read(parse_bytes, text)


def _shapes(
    ctx: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    return dict(_read(parse_shape, text) for text in texts)


def _read(parse: Callable[[str], Any], text: str) -> Any:  # noqa: ANN401 - whatever is parsed
    """Turns a wrong word of the command line into wrong usage."""
    from cclseg.errors import InputError

    try:
        return parse(text)
    except InputError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("model")
@click.option(
    "--target",
    type=click.Choice(get_args(Target)),
    default="tensorrt",
    show_default=True,
    help="What shall run it.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Engine to write, or the .xml file for openvino "
    "[default: beside MODEL; for a bundled model in the current folder].",
)
@click.option("--min", "smallest", multiple=True, callback=_shapes, help=f"Smallest {_SHAPE}.")
@click.option("--opt", "usual", multiple=True, callback=_shapes, help=f"Usual {_SHAPE}.")
@click.option(
    "--max",
    "largest",
    multiple=True,
    callback=_shapes,
    help=f"Largest {_SHAPE} [default: eight tiles].",
)
@click.option(
    "--workspace",
    "workspace_bytes",
    callback=_bytes,
    metavar="SIZE",
    help="Scratch memory that kernels may take, such as 2GiB [default: the device's memory].",
)
@click.option(
    "--optimization-level",
    type=click.IntRange(0, 5),
    help="How long to search for kernels [default: the library's].",
)
@click.option(
    "--timing-cache",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of measured kernel times, read and written [default: in the user's cache folder].",
)
@click.option(
    "--plugin",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Compiled correlation [default: found, or compiled where nvcc is].",
)
@click.option("--version-compatible", is_flag=True, help="Also run in later versions of TensorRT.")
@click.option(
    "--hardware-compatible",
    "hardware_compatibility",
    type=click.Choice(_LEVELS),
    default="none",
    show_default=True,
    help="Also run on other devices.",
)
@click.option("--dla", "dla_core", type=int, help="Run on this deep-learning accelerator core.")
@click.option("--gpu-fallback", is_flag=True, help="Run on the GPU what --dla cannot.")
@json_option
def build(
    model: str, target: Target, output: Path | None, json_path: Path | None, **options: Any
) -> None:
    """Build an engine of MODEL for this device.

    MODEL is an ONNX file or a bundled name. The engine gets a sidecar, <engine>.json, that says
    what it was built for; without it the engine is not loaded. If memory runs out the build is
    tried again with less scratch memory.
    """
    from cclseg.models import bundled_models, find_model

    path = find_model(model)
    folder = Path() if model in bundled_models() else path.parent
    if target == "openvino":
        report = _build_ir(path, output or folder / f"{path.stem}.xml", options)
        if json_path != STANDARD_OUTPUT:
            _print_files(report)
    else:
        from .build import build_engine

        engine = output or folder / f"{path.stem}.engine"
        with _terminated_like_interrupted(), _progress(engine.name) as progress:
            built = build_engine(path, engine, target, BuildOptions(**options), progress=progress)
        report = _report(built)
        if json_path != STANDARD_OUTPUT:
            _print_engine(built)
    if json_path is not None:
        write_report(report, json_path)


def _build_ir(model: Path, target: Path, options: dict[str, Any]) -> dict[str, Any]:
    from .openvino_ir import write_ir

    defaults = BuildOptions()
    for option in build.params:
        if option.name in options and options[option.name] != getattr(defaults, option.name):
            raise click.UsageError(f"{option.opts[0]} is for TensorRT, not for --target openvino")
    files = write_ir(model, target)
    return {"files": [{"path": str(path), "bytes": path.stat().st_size} for path in files]}


def _print_files(report: dict[str, Any]) -> None:
    for file in report["files"]:
        click.echo(f"{file['path']}  {file['bytes'] / 1e6:.2f} MB")


def _print_engine(built: BuiltEngine) -> None:
    record = built.record
    size_mb = record.engine_bytes / 1e6
    click.echo(f"{built.path}  {size_mb:.2f} MB, built in {built.build_s:.1f} s")
    capability = ".".join(map(str, record.capability or ())) or "any"
    click.echo(
        f"{record.library} {record.library_version}, {record.precision}, compute capability "
        f"{capability}"
    )
    for name, shapes in record.shapes.items():
        click.echo(f"{name}: " + " to ".join("x".join(map(str, shapes[i])) for i in (0, 2)))
    for warning in built.warnings[:_WARNINGS_SHOWN]:
        click.echo(f"warning: {warning}", err=True)
    if (more := len(built.warnings) - _WARNINGS_SHOWN) > 0:
        click.echo(f"and {more} warnings more of the library; --json has all", err=True)


def _report(built: BuiltEngine) -> dict[str, Any]:
    return {
        "engine": str(built.path),
        "build_s": built.build_s,
        "attempts": built.attempts,
        "warnings": list(built.warnings),
        **built.record.to_dict(),
    }


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Ends a build on SIGTERM as on Ctrl-C, so that the building process goes, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(name: str) -> Iterator[OnProgress | None]:
    """Shows a bar with the time that is left; nothing without a terminal or without rich."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield None
        return
    columns = (TextColumn("{task.description:32.32}"), BarColumn(), TextColumn("ETA"))
    console = Console(stderr=True)
    remaining = TimeRemainingColumn()
    hidden = not console.is_terminal
    with Progress(*columns, remaining, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(f"building {name}", total=1.0)

        def show(share: float, phase: str) -> None:
            bar.update(task, completed=share, description=phase.lower())

        yield show
