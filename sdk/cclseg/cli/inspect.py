"""The verb ``cclseg inspect``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import SpecError
from .options import STANDARD_OUTPUT, json_option, write_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from ..engine_record import EngineRecord
    from ..onnx_file import OnnxFile
    from ..spec import ModelSpec

_OPS_SHOWN = 8


@click.command()
@click.argument("model")
@click.option("--verify", is_flag=True, help="Check the signature; exit code 1 if it is not valid.")
@click.option(
    "--public-key",
    "keys",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="Key to check with; may be repeated [default: this device's trusted keys].",
)
@click.option(
    "--signature",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The signature's file [default: MODEL.sig, else model.sig beside it].",
)
@json_option
def inspect(
    model: str,
    verify: bool,
    keys: tuple[Path, ...],
    signature: Path | None,
    json_path: Path | None,
) -> None:
    """Say what a model file holds.

    MODEL is a bundled name, an .onnx file, an engine, or a file of any installed backend (.pt).
    ONNX files and engines are read without running them and without their libraries.
    """
    if (keys or signature) and not verify:
        raise click.UsageError("--public-key and --signature are for --verify; add it")
    from ..built_engines import ENGINE_SUFFIXES
    from ..engine_record import read_record
    from ..files import file_sha256
    from ..models import find_model
    from ..onnx_file import read_onnx

    path = find_model(model)
    signed = _verified(path, signature, keys) if verify else None
    content = read_onnx(path) if path.suffix == ".onnx" else None
    engine = read_record(path) if path.suffix in ENGINE_SUFFIXES else None
    spec, problem = (engine.spec, None) if engine else _spec_of(path, content)
    report = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "spec": dataclasses.asdict(spec) if spec else None,
        "spec_problem": problem,
        "graph": dataclasses.asdict(content) if content else None,
        "engine": engine and {**engine.to_dict(), "problems": _problems(path, engine)},
        "signature": signed,
    }
    if json_path is not None:
        write_report(report, json_path)
    if json_path != STANDARD_OUTPUT:
        _print_model(report, spec, content)


def _problems(path: Path, record: EngineRecord) -> list[str]:
    """Says why an engine does not run on this machine; empty where it does."""
    from ..engine_file import damage, mismatches, read_here
    from ..errors import MissingDependencyError

    problems = damage(path.read_bytes(), record)
    try:
        return problems + mismatches(path, record, read_here(record))
    except MissingDependencyError as error:
        return [*problems, str(error)]


def _verified(path: Path, signature: Path | None, key_files: tuple[Path, ...]) -> dict[str, Any]:
    """Checks the signature before anything else is made of the file."""
    from ..errors import InputError
    from ..model_files import signature_of
    from ..signature import load_public_key
    from ..trust import check_model, find_signature, keys_folder, pinned_keys

    pinned = None if key_files else pinned_keys()
    if not key_files and pinned is None:
        raise InputError(
            f"no key to check {path.name} with; give one with --public-key FILE, or put it into "
            f"{keys_folder()}"
        )
    keys = pinned.load() if pinned else tuple(load_public_key(file) for file in key_files)
    found = signature or find_signature(path)
    if found is None:
        raise InputError(
            f"{path} is not signed: {signature_of(path).name} is absent; name another with "
            "--signature FILE, or sign it with: cclseg sign"
        )
    signed = check_model(path, found, keys)
    return {
        "file": str(found),
        "key": str(signed.key.path),
        "key_sha256": signed.key.fingerprint,
        "files": dict(signed.digests),
    }


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
    if (signed := report["signature"]) is not None:
        rows += [("signature", f"valid: {signed['file']}, covers {', '.join(signed['files'])}")]
        rows += [("signed with", f"{signed['key']}, sha256 {signed['key_sha256']}")]
    if report["engine"] is not None:
        rows += _engine_rows(report["engine"])
    rows += _spec_rows(spec) if spec else [("spec", report["spec_problem"] or "none")]
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
        *_parity_rows(spec),
    ]
    return [(name, text) for name, text in rows if text]


def _engine_rows(engine: dict[str, Any]) -> list[tuple[str, str]]:
    capability = engine["capability"]
    device = f"compute capability {capability[0]}.{capability[1]}" if capability else "any device"
    plugin = engine["plugin"]
    rows = [
        ("engine of", f"{engine['library']} {engine['library_version']}, {engine['precision']}"),
        ("built for", ", ".join(filter(None, (device, engine["device"])))),
        ("driver then", engine["driver"]),
        ("built from", f"{engine['source']}, sha256 {engine['source_sha256']}"),
        ("plugin", f"{plugin['name']} {plugin['version']}, {plugin['sha256']}" if plugin else ""),
    ]
    for name, (smallest, usual, largest) in engine["shapes"].items():
        sizes = ("x".join(map(str, shape)) for shape in (smallest, usual, largest))
        rows.append((f"takes {name}", "{0} to {2}, best at {1}".format(*sizes)))
    rows += [("problem here", problem) for problem in engine["problems"]]
    return [(name, text) for name, text in rows if text]


def _parity_rows(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Says how close the file is to its origin; figures of a backend stand in one line."""
    for name, figure in spec.parity.items():
        if name == "backends" and isinstance(figure, dict):
            for backend, figures in figure.items():
                yield f"parity {backend}", _backend_line(figures)
        elif isinstance(figure, list):
            yield f"parity {name}", ", ".join(map(str, figure)) or "none"
        else:
            yield f"parity {name}", str(figure)


def _backend_line(figures: Any) -> str:  # noqa: ANN401 - whatever the file holds
    """Reads what our exporter writes; anything else is shown as it is."""
    try:
        change = 100 * (figures["miou"] - figures["miou_reference"])
        line = f"mIoU {figures['miou']:.4f} ({change:+.2f} points)"
        line += f", {figures['agreement']:.2%} of pixels agree"
        ratio = figures.get("latency_ratio")
        return f"{line}, {ratio:.2f} x as fast as fp32" if ratio else line
    except (KeyError, TypeError, ValueError, AttributeError):
        return str(figures)


def _graph_rows(content: OnnxFile) -> list[tuple[str, str]]:
    ops = [f"{name} {count}" for name, count in content.op_counts.items()]
    more = f" and {len(ops) - _OPS_SHOWN} kinds more" if len(ops) > _OPS_SHOWN else ""
    opsets = ", ".join(f"{domain or 'onnx'} {n}" for domain, n in content.opsets.items())
    return [
        *(("input", str(tensor)) for tensor in content.inputs),
        *(("output", str(tensor)) for tensor in content.outputs),
        ("weights", f"{content.parameters:,}"),
        *(
            ("weights in", name)
            for name in dict.fromkeys(d.location for d in content.external_data)
        ),
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
