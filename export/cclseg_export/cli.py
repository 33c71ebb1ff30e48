"""The verb ``cclseg export``. Light to import: torch is loaded when the verb runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cclseg.cli.options import STANDARD_OUTPUT, json_option, write_report

from .targets import TARGETS
from .thresholds import METHODS

if TYPE_CHECKING:
    from cclseg.spec import ModelSpec


def _read_spec(ctx: click.Context, option: click.Parameter, path: Path | None) -> ModelSpec | None:
    """Reads a spec file before any work."""
    from cclseg.errors import SpecError
    from cclseg.spec import ModelSpec

    if path is None or ctx.resilient_parsing:
        return None
    try:
        return ModelSpec.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, SpecError) as error:
        raise click.BadParameter(f"cannot take {path}: {error}") from error


@click.command()
@click.argument("source", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Target folder.")
@click.option("--int8", is_flag=True, help="Write INT8 files as well.")
@click.option(
    "--target", "targets", multiple=True, type=click.Choice(list(TARGETS)),
    help="What INT8 is for; repeatable (default: cpu). Implies --int8.",
)  # fmt: skip
@click.option(
    "--fp16", is_flag=True,
    help="Write a file in 16 bits as well; INT8 for TensorRT then has 16 bits where it has not 8.",
)  # fmt: skip
@click.option(
    "--calib", "calibration", type=click.Path(path_type=Path),
    help="Real images to calibrate on: a folder of images, a dataset folder or a video.",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(path_type=Path),
    help="Dataset folder to measure accuracy on (default: the one of --calib).",
)  # fmt: skip
@click.option("--split", default="test", show_default=True, help="Split to measure on.")
@click.option(
    "--budget", "budget_points", default=0.5, show_default=True,
    help="Most IoU in points that a class may lose.",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(METHODS), default="minmax", show_default=True,
    help="How the calibration finds the range of a map.",
)  # fmt: skip
@click.option(
    "--percentile", type=float, help="Share of magnitudes that is kept; implies that method."
)
@click.option("--keep-float", multiple=True, help="Node that stays in floating point; repeatable.")
@click.option(
    "--auto", is_flag=True,
    help="Search for few layers in floating point that meet the budget, fast ones first.",
)  # fmt: skip
@click.option(
    "--search-minutes", default=10.0, show_default=True, help="Time for the search of --auto."
)
@click.option(
    "--search-split", default="val", show_default=True, help="Split that the search may look at."
)
@click.option(
    "--keep-operator", is_flag=True,
    help="Leave each correlation one node, for kernels of 'cclseg ops build'.",
)  # fmt: skip
@click.option(
    "--spec", type=click.Path(path_type=Path), callback=_read_spec, metavar="FILE",
    help="JSON of a ModelSpec, for an ONNX file that does not describe itself.",
)  # fmt: skip
@click.option(
    "--reference", type=click.Path(path_type=Path), metavar="CHECKPOINT",
    help="Compare with this one, from which CHECKPOINT was trained on with --quantize.",
)  # fmt: skip
@click.option("--threads", type=int, help="Threads of the backends while measuring.")
@click.option("--license", default="", help="SPDX identifier of the weights' licence.")
@json_option
@click.pass_context
def export(
    context: click.Context,
    /,
    source: Path,
    out: Path,
    json_path: Path | None,
    **options: Any,
) -> None:
    """Turn CHECKPOINT into ONNX, and with --int8 into measured INT8 files.

    CHECKPOINT is a .pt file of the trainer, or an ONNX segmentation network of another program.
    Every file is compared with its origin on labelled images, on every backend of this machine.
    One that costs a class more than the budget is called *.rejected, and the exit code is 1.

    A checkpoint of 'cclseg train --quantize' is given with --reference ORIGIN: it is compared with
    the network that it comes from, and must beat INT8 made from that one without training.
    """
    from .display import ExportDisplay, print_result
    from .export import export_model
    from .options import ExportOptions

    chosen = ExportOptions(**_with_implied(options))
    with ExportDisplay() as display:
        result = export_model(source, out, chosen, on_progress=display.on_progress)
    if json_path:
        write_report(result.report, json_path)
    if json_path != STANDARD_OUTPUT:
        print_result(result.report, result.files, out)
    if result.rejected:
        context.exit(1)


def _with_implied(options: dict[str, Any]) -> dict[str, Any]:
    """Adds what options imply: a target means INT8, a share means the method that takes it."""
    if options["targets"]:
        options["int8"] = True
    else:
        options["targets"] = ("cpu",)
    if options["percentile"] is None:
        del options["percentile"]
    else:
        options["method"] = "percentile"
    return options
