"""What ``parity.json`` says: which files were made, how, and how close each is to its origin."""

from __future__ import annotations

import dataclasses
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from cclseg import __version__
from cclseg.machine import read_machine

from .gate import headlines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cclseg.dataset import DatasetFolder

    from .gate import Verdict
    from .layer_search import LayerChoice
    from .options import ExportOptions
    from .origin import Origin
    from .tiles import CalibrationSet

SCHEMA_VERSION = 3
_LIBRARIES = ("torch", "onnx", "onnxruntime", "openvino")
_PLENTY_OF_TILES = 64
_LAYERS_TO_NAME = 3


def parity_report(  # noqa: PLR0913 - one argument per step of the job
    origin: Origin,
    options: ExportOptions,
    *,
    reference: Origin | None,
    conversion_error: float | None,
    calibration: CalibrationSet | None,
    dataset: DatasetFolder | None,
    choice: LayerChoice | None,
    verdicts: Sequence[Verdict],
    rival: Verdict | None,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Builds the content of ``parity.json``.

    Args:
        origin: Where the files come from.
        options: What was asked for.
        reference: What the files were compared with, None for the origin itself.
        conversion_error: Largest logit difference to torch over the largest logit.
        calibration: What INT8 was calibrated on, None without INT8.
        dataset: What accuracy was measured on, None where it was not.
        choice: Which layers stay in floating point, None where none was looked for.
        verdicts: Of the gate, the fp32 file first.
        rival: Of the gate about INT8 made from the reference without training, None without one.
        seconds: Time of each step.
    """
    lines = (
        headlines(verdicts)
        if dataset
        else ["Accuracy was not measured: no labelled images were given (--data FOLDER)."]
    )
    return {
        "schema": SCHEMA_VERSION,
        "model": origin.spec.name,
        "origin": _network(origin),
        "reference": _network(reference) if reference else None,
        "headlines": [*lines, *(calibration.warnings if calibration else ())],
        "advice": list(_advice(origin, options, calibration, choice, verdicts)),
        "conversion_error": conversion_error,
        "data": _data(dataset, options.split),
        "budget_points": options.budget_points,
        "calibration": _calibration(calibration, options),
        "files": [_file(verdict) for verdict in verdicts],
        "rival": _file(rival) if rival else None,
        "search": _search(choice, options.search_split) if choice else None,
        "machine": _machine(options.threads),
        "seconds": dict(seconds),
    }


def parity_summary(report: Mapping[str, Any], file: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what travels inside a model file: its own figures and what they were measured on."""
    data, calibration = report["data"], report["calibration"]
    return {
        **(
            {"data": data["name"], "split": data["split"], "images": data["images"]} if data else {}
        ),
        "budget_points": report["budget_points"],
        **({"reference": report["reference"]} if report["reference"] else {}),
        **({"calibration_tiles": calibration["tiles"]} if calibration else {}),
        "kept_float": file["kept_float"],
        "backends": file["backends"],
    }


def _network(origin: Origin) -> dict[str, Any]:
    return {
        "file": origin.path.name,
        "sha256": origin.spec.source_sha256,
        "kind": "onnx" if origin.checkpoint is None else "checkpoint",
    }


def _data(dataset: DatasetFolder | None, split: str) -> dict[str, Any] | None:
    if dataset is None:
        return None
    return {
        "name": dataset.root.resolve().name,
        "split": split,
        "images": len(dataset.stems(split)),
    }


def _calibration(
    calibration: CalibrationSet | None, options: ExportOptions
) -> dict[str, Any] | None:
    if calibration is None:
        return None
    return {
        "tiles": len(calibration.tiles),
        "images": calibration.images,
        "warnings": list(calibration.warnings),
        "method": options.method,
        "percentile": options.percentile if options.method == "percentile" else None,
    }


def _file(verdict: Verdict) -> dict[str, Any]:
    file = verdict.file
    return {
        "name": file.path.name,
        "precision": file.precision,
        "target": file.target,
        "rejected": verdict.rejected,
        "kept_float": list(file.kept_float),
        "failures": verdict.failures,
        "backends": verdict.figures(),
    }


def _search(choice: LayerChoice, split: str) -> dict[str, Any]:
    best = choice.search.best
    return {
        "split": split,
        "complete": choice.search.complete,
        "within_budget": best.passes,
        "kept_float": {node: choice.reason(node) for node in best.kept},
        "trials": [dataclasses.asdict(trial) for trial in choice.search.trials],
        "layers": [
            dataclasses.asdict(cost)
            | {
                "kept_float": cost.node in best.kept,
                "miou_cost_points": choice.miou_costs.get(cost.node),
            }
            for cost in choice.costs
        ],
    }


def _machine(threads: int | None) -> dict[str, Any]:
    machine = read_machine()
    return {
        "cpu": machine.cpu,
        "instruction_sets": list(machine.instruction_sets),
        "threads": threads or machine.cores,
        "system": machine.system,
        "board": machine.board,
        "versions": {"cclseg": __version__} | dict(_versions()),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:  # built from source, or absent
            continue


def _advice(
    origin: Origin,
    options: ExportOptions,
    calibration: CalibrationSet | None,
    choice: LayerChoice | None,
    verdicts: Sequence[Verdict],
) -> Iterator[str]:
    """Says what to try where an INT8 file was rejected: the cheapest way first."""
    loses = any(v.rejected and not v.disagreement and v.file.precision == "int8" for v in verdicts)
    if calibration is None or not loses:
        return
    if options.method == "minmax":
        yield "Cut off rare extremes when calibrating: --method percentile, or --method mse."
    if len(calibration.tiles) < _PLENTY_OF_TILES:
        yield (
            f"Calibrate on more images: {len(calibration.tiles)} tiles were used, "
            f"{_PLENTY_OF_TILES} are better."
        )
    if not options.auto:
        yield "Keep the layers that cost most in floating point, as few as the budget asks: --auto."
    elif choice and not choice.search.complete:
        yield f"Search longer: --search-minutes {2 * options.search_minutes:g}."
    elif choice and choice.costs:
        rest = [cost.node for cost in choice.costs if cost.node not in choice.search.best.kept]
        names = " ".join(
            f"--keep-float {node}" for node in (*choice.search.best.kept, *rest[:_LAYERS_TO_NAME])
        )
        yield f"Keep the next layers in floating point as well: {names}."
    if origin.checkpoint is not None and not origin.checkpoint.train_config.quantize:
        yield (
            "Train on with rounding in the loop, and export what comes out if it is better: "
            f"cclseg train DATA --start {origin.path.name} --quantize -o RUN, then "
            f"cclseg export RUN/best.pt --reference {origin.path.name} with the options of now."
        )
    elif origin.checkpoint is not None and options.reference is None:
        yield (
            "Compare it with the network that it was trained from, not with its own form in "
            "floating point: --reference ORIGIN."
        )
    yield "Accept the loss, where it does not matter for your use: --budget POINTS."
