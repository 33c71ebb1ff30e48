"""What an export makes of checkpoints: sizes, times, speed and accuracy of INT8, engines.

Usage: python benchmarks/export_figures.py CHECKPOINT ... [--data DATA] [--auto] [-o FILE]

A checkpoint of ``cclseg train --quantize`` is given with what it was trained from, and compared
with that: QUANTIZED=ORIGIN.

Every checkpoint goes through the whole of ``cclseg export``: INT8 files for ONNX Runtime, OpenVINO
and TensorRT for RTX, each measured beside its origin on the test split. fp32 and INT8 files of one
model are timed in turns, so their ratio holds on a busy machine; milliseconds and seconds do not.
Engines are built where TensorRT for RTX is installed; that needs no GPU. Without checkpoints there
is nothing to measure. The result file, with a table in Markdown beside it, is written anew after
each checkpoint, so that an interrupted run keeps what is done.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _record import write_result

from cclseg.errors import MissingDependencyError
from cclseg.files import write_bytes
from cclseg_export.engine.build import build_engine
from cclseg_export.engine.options import BuildOptions
from cclseg_export.export import export_model
from cclseg_export.options import ExportOptions

_DATA = Path(__file__).parents[2] / "shared" / "data" / "dubai"
_RTX = "tensorrt-rtx"
_TARGETS = {"onnxruntime": "cpu", "openvino": "openvino"}
"""The target whose file a backend is judged by."""


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT[=REFERENCE]")
    parser.add_argument("--data", type=Path, default=_DATA, help="dataset folder")
    parser.add_argument("--auto", action="store_true", help="search layers to keep in float")
    parser.add_argument("--search-minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    if not arguments.checkpoints:
        print("export_figures: nothing measured; give checkpoints of the trainer")
        return
    options = ExportOptions(
        int8=True,
        targets=("cpu", "openvino", _RTX),
        calibration=arguments.data,
        auto=arguments.auto,
        search_minutes=arguments.search_minutes,
        threads=arguments.threads,
    )
    records: list[dict[str, Any]] = []
    for words in arguments.checkpoints:
        checkpoint, _, reference = words.partition("=")
        asked = replace(options, reference=Path(reference) if reference else None)
        with TemporaryDirectory() as folder:
            records.append(_record(Path(checkpoint), Path(folder), asked))
        target = write_result("export_figures", {"models": records}, arguments.out)
        write_bytes(target.with_suffix(".md"), "\n".join([*_table(records), ""]).encode())
        print(f"{checkpoint}: done")
    print(target.with_suffix(".md").read_text(), target, sep="\n")


def _record(checkpoint: Path, folder: Path, options: ExportOptions) -> dict[str, Any]:
    """Exports a checkpoint and builds engines of the floating-point and the INT8 file."""
    result = export_model(checkpoint, folder, options)
    engines = {}
    for path, entry in zip(result.files, result.report["files"], strict=True):
        if entry["precision"] == "fp32" or entry["target"] == _RTX:
            engines[entry["precision"]] = _engine(path, folder / f"{entry['precision']}.onnx")
    return {
        "name": result.report["model"],
        "checkpoint": f"{checkpoint.parent.name}/{checkpoint.name}",
        "checkpoint_bytes": checkpoint.stat().st_size,
        "parity": result.report,
        "engines": engines,
    }


def _engine(model: Path, copy: Path) -> dict[str, Any] | None:
    """Builds an engine; None where its library is not installed."""
    shutil.copyfile(model, copy)  # the builder takes no file that the gate has rejected
    try:
        built = build_engine(copy, copy.with_suffix(".engine"), _RTX, BuildOptions())
    except MissingDependencyError:
        return None
    return {
        "bytes": built.record.engine_bytes,
        "build_s": built.build_s,
        "library_version": built.record.library_version,
    }


def _table(records: list[dict[str, Any]]) -> Iterator[str]:
    classes = list(records[0]["parity"]["files"][0]["backends"]["onnxruntime"]["iou"])
    columns = [
        "model",
        "fp32 / INT8 file, MB",
        "export (search), s",
        "backend",
        "mIoU fp32 → INT8",
        *(f"Δ {name}" for name in classes),
        "INT8 speed",
        "float layers",
        "within budget",
        "RTX engine fp32 / INT8, MB",
        "RTX build, s",
    ]
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for record in records:
        for backend, target in _TARGETS.items():
            yield f"| {' | '.join(_row(record, backend, target, classes))} |"


def _row(record: dict[str, Any], backend: str, target: str, classes: list[str]) -> list[str]:
    parity = record["parity"]
    original = parity["files"][0]
    file = next(f for f in parity["files"] if f["precision"] == "int8" and f["target"] == target)
    figures = file["backends"][backend]
    engines = [record["engines"][precision] for precision in ("fp32", "int8")]
    reference = parity["reference"]
    return [
        f"{record['name']} ({record['checkpoint']} against {reference['file']})"
        if reference
        else record["name"],
        f"{original['bytes'] / 1e6:.2f} / {file['bytes'] / 1e6:.2f}",
        f"{sum(parity['seconds'].values()):.0f} ({parity['seconds'].get('search', 0):.0f})",
        backend,
        f"{figures['miou_reference']:.4f} → {figures['miou']:.4f}",
        *(_points(figures["iou_loss_points"][name]) for name in classes),
        f"{figures['latency_ratio']:.2f}x",
        str(len(file["kept_float"])),
        "no" if file["rejected"] else "yes",
        " / ".join(f"{e['bytes'] / 1e6:.2f}" if e else "–" for e in engines),
        " / ".join(f"{e['build_s']:.0f}" if e else "–" for e in engines),
    ]


def _points(loss: float | None) -> str:
    return "–" if loss is None else f"{-loss:+.2f}"


if __name__ == "__main__":
    main()
