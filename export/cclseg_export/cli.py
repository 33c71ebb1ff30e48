"""The verb ``cclseg export``. Light to import: torch is loaded when the verb runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Target folder.")
@click.option("--int8", is_flag=True, help="Write the INT8 file for CPUs as well.")
@click.option(
    "--calib",
    "calibration",
    type=click.Path(path_type=Path),
    help="Real images to calibrate on: a folder of images or a dataset folder.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Dataset folder to measure accuracy on (default: the one of --calib).",
)
@click.option("--split", default="test", show_default=True, help="Split to measure on.")
@click.option(
    "--budget",
    "budget_points",
    default=0.5,
    show_default=True,
    help="Most IoU in points that a class may lose to INT8.",
)
@click.option("--percentile", type=float, help="Calibrate on this share of magnitudes (99.99).")
@click.option("--keep-float", multiple=True, help="Node that stays in floating point; repeatable.")
@click.option("--threads", type=int, help="Threads of the backends while measuring.")
@click.option("--license", default="", help="SPDX identifier of the weights' licence.")
@click.pass_context
def export(context: click.Context, /, checkpoint: Path, out: Path, **options: Any) -> None:
    """Turn CHECKPOINT into ONNX, and with --int8 into a measured INT8 file.

    The INT8 file is compared with the floating-point one on labelled images, on every backend of
    this machine. Outside the budget it is called *.rejected and the exit code is 1.
    """
    from .export import ExportOptions, export_checkpoint

    result = export_checkpoint(checkpoint, out, ExportOptions(**options))
    for path in result.files:
        click.echo(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    for backend, figures in result.report.get("int8", {}).get("backends", {}).items():
        click.echo(
            f"{backend}: mIoU {figures['miou_reference']:.4f} -> {figures['miou']:.4f}, agreement "
            f"{figures['agreement']:.4f} ({figures['agreement_where_sure']:.4f} where sure), INT8 "
            f"{figures['latency_ratio']:.2f} x as fast"
        )
    if result.rejected:
        click.echo(f"rejected: {result.rejected}", err=True)
        context.exit(1)
