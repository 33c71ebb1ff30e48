"""The verb ``cclseg inspect``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import SpecError
from .options import STANDARD_OUTPUT, json_option, write_report

if TYPE_CHECKING:
    from rich.table import Table

    from ..onnx_file import OnnxFile
    from ..spec import ModelSpec

_OPS_SHOWN = 8


@click.command()
@click.argument("model")
@json_option
def inspect(model: str, json_path: Path | None) -> None:
    """Say what a model file holds.

    MODEL is a bundled name, an .onnx file, or a file of any installed backend (.pt). An .onnx
    file is read without running it and without its libraries.
    """
    from ..files import file_sha256
    from ..models import find_model
    from ..onnx_file import read_onnx

    path = find_model(model)
    content = read_onnx(path) if path.suffix == ".onnx" else None
    spec, problem = _spec_of(path, content)
    report = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "spec": dataclasses.asdict(spec) if spec else None,
        "spec_problem": problem,
        "graph": dataclasses.asdict(content) if content else None,
    }
    if json_path is not None:
        write_report(report, json_path)
    if json_path != STANDARD_OUTPUT:
        _print_model(report, spec, content)


def _spec_of(path: Path, content: OnnxFile | None) -> tuple[ModelSpec | None, str | None]:
    """Returns the spec, or why there is none: a foreign file is still worth a look."""
    if content is None:
        from ..backends.choose import open_backend

        with open_backend(path) as backend:
            return backend.spec, None
    from ..onnx_file import spec_of

    try:
        return spec_of(path, content), None
    except SpecError as error:
        return None, str(error)


def _print_model(report: dict[str, Any], spec: ModelSpec | None, content: OnnxFile | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows = [("file", f"{report['file']}"), ("size", f"{report['bytes'] / 1e6:.2f} MB")]
    rows += [("sha256", report["sha256"])]
    rows += _spec_rows(spec) if spec else [("spec", report["spec_problem"])]
    rows += _graph_rows(content) if content else []
    for name, text in rows:
        table.add_row(name, Text(text))
    console = Console(highlight=False)
    console.print(table)
    if spec is not None:
        console.print()
        console.print(_class_table(spec))


def _spec_rows(spec: ModelSpec) -> list[tuple[str, str]]:
    height, width = spec.input_hw
    rows = [
        ("model", f"{spec.name}, version {spec.version}, {spec.precision}"),
        ("about", spec.description),
        ("licence", spec.license),
        ("bands", ", ".join(spec.bands)),
        ("tile", f"{height} x {width} px, overlap {spec.overlap:.0%}"),
        ("normalised", f"(value - {_numbers(spec.mean)}) / {_numbers(spec.std)}"),
        ("logits", f"1/{spec.output_stride} of the input along each axis"),
        ("resolution", f"{spec.gsd_m} m per pixel" if spec.gsd_m else ""),
        ("trained on", ", ".join(spec.trained_on)),
        ("made from", spec.source_sha256 or ""),
        *((f"parity {name}", str(figure)) for name, figure in spec.parity.items()),
    ]
    return [(name, text) for name, text in rows if text]


def _graph_rows(content: OnnxFile) -> list[tuple[str, str]]:
    ops = [f"{name} {count}" for name, count in content.op_counts.items()]
    more = f" and {len(ops) - _OPS_SHOWN} kinds more" if len(ops) > _OPS_SHOWN else ""
    opsets = ", ".join(f"{domain or 'onnx'} {n}" for domain, n in content.opsets.items())
    return [
        *(("input", str(tensor)) for tensor in content.inputs),
        *(("output", str(tensor)) for tensor in content.outputs),
        ("weights", f"{content.parameters:,}"),
        ("operators", ", ".join(ops[:_OPS_SHOWN]) + more),
        ("opsets", opsets),
        ("written by", content.producer or "unknown"),
    ]


def _numbers(values: tuple[float, ...]) -> str:
    """Writes per-band figures, once where all are the same."""
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"


def _class_table(spec: ModelSpec) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("id", justify="right", style="dim")
    table.add_column("")
    table.add_column("class")
    table.add_column("colour", style="dim")
    for index, (name, (red, green, blue)) in enumerate(
        zip(spec.class_names, spec.palette, strict=True)
    ):
        code = f"#{red:02x}{green:02x}{blue:02x}"
        table.add_row(str(index), Text("    ", style=f"on {code}"), name, code)
    return table
