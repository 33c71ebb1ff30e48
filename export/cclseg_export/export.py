"""The export job: checkpoint in, measured model files out."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cclseg.dataset import DatasetFolder, open_dataset
from cclseg.errors import BackendError, InputError
from cclseg.files import file_sha256, make_folder, write_json
from cclseg_trainer.checkpoint import load_checkpoint

from .parity import compare, worst_loss
from .quantize import calibrate, correct_bias, to_int8_for_cpu
from .tiles import calibration_tiles
from .to_onnx import attach_spec, largest_difference, save_model, to_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from cclseg.frame import FloatArray

logger = logging.getLogger(__name__)

CPU_BACKENDS = ("onnxruntime", "openvino")
LARGEST_CONVERSION_ERROR = 1e-3
"""Largest logit difference between torch and ONNX, relative to the largest logit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to write and what to accept.

    Attributes:
        int8: Write the INT8 file for CPUs as well.
        calibration: Folder of images or dataset folder to calibrate on.
        data: Dataset folder to measure accuracy on; None takes ``calibration``.
        split: Split to measure on.
        budget_points: Most IoU that any class may lose to INT8, in points (0.5 = 0.005).
        percentile: Calibrate on this share of magnitudes in percent, None for the largest.
        keep_float: Names of nodes that stay in floating point.
        threads: Threads of the backends while measuring.
        license: SPDX identifier of the weights' licence, noted in the file.
    """

    int8: bool = False
    calibration: Path | None = None
    data: Path | None = None
    split: str = "test"
    budget_points: float = 0.5
    percentile: float | None = None
    keep_float: tuple[str, ...] = ()
    threads: int | None = None
    license: str = ""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What the job wrote.

    Attributes:
        files: The model files.
        report: Content of ``parity.json``.
        rejected: Why the INT8 file is outside its budget, or None.
    """

    files: tuple[Path, ...]
    report: dict[str, Any]
    rejected: str | None


def export_checkpoint(checkpoint_path: Path, out: Path, options: ExportOptions) -> ExportResult:
    """Writes ``NAME.onnx``, with ``int8`` also ``NAME.int8.onnx``, and ``parity.json``.

    The INT8 file is measured before it gets its name: one that loses more than the budget is
    called ``NAME.int8.onnx.rejected``.

    Raises:
        BackendError: The checkpoint is damaged, or ONNX does not compute what torch does.
        InputError: Calibration images or data do not fit.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    tiles: list[FloatArray] = []
    dataset: DatasetFolder | None = None
    if options.int8:
        if options.calibration is None:
            raise InputError(
                "INT8 needs real images to calibrate on; give --calib FOLDER (a folder of images "
                "or a dataset folder)"
            )
        tiles = calibration_tiles(options.calibration, checkpoint.spec)
        dataset = open_dataset(options.data or options.calibration)
        dataset.check((options.split,))
    make_folder(out)

    spec = dataclasses.replace(
        checkpoint.spec, source_sha256=file_sha256(checkpoint_path), license=options.license
    )
    model = to_onnx(checkpoint)
    attach_spec(model, spec)
    probe = tiles[0] if tiles else _noise(checkpoint.spec.bands, checkpoint.spec.input_hw)
    difference = largest_difference(checkpoint, model, probe)
    if not difference <= LARGEST_CONVERSION_ERROR:
        raise BackendError(
            f"the ONNX graph differs from torch by {difference:.2g} of the largest logit; expected "
            f"at most {LARGEST_CONVERSION_ERROR}; report this as a bug"
        )
    fp32_path = out / f"{spec.name}.onnx"
    save_model(model, fp32_path)
    report: dict[str, Any] = {"model": spec.name, "conversion_error": difference}
    if dataset is None:
        write_json(out / "parity.json", report)
        return ExportResult((fp32_path,), report, None)

    int8_path = out / f"{spec.name}.int8.onnx"
    candidate_path = out / f"{int8_path.name}.rejected"
    ranges = calibrate(model, tiles, spec=spec, percentile=options.percentile)
    uncorrected = to_int8_for_cpu(model, ranges, keep_float=options.keep_float)
    int8_model = to_int8_for_cpu(
        correct_bias(model, uncorrected, tiles), ranges, keep_float=options.keep_float
    )
    int8_spec = dataclasses.replace(spec, precision="int8")
    attach_spec(int8_model, int8_spec)
    measured_path = out / f".{spec.name}.measured.onnx"
    try:
        save_model(int8_model, measured_path)
        parity = compare(
            fp32_path,
            measured_path,
            dataset,
            options.split,
            backends=_installed_backends(),
            threads=options.threads,
        )
    finally:
        measured_path.unlink(missing_ok=True)
    parity |= {
        "data": dataset.root.resolve().name,
        "calibration_tiles": len(tiles),
        "budget_points": options.budget_points,
    }
    report["int8"] = parity
    loss, place = worst_loss(parity)
    rejected = (
        f"{place} loses {loss:.2f} points of IoU to INT8; the budget is "
        f"{options.budget_points} points. Try --percentile 99.99, more calibration images, "
        "or --keep-float for the layers that cost most"
        if loss > options.budget_points
        else None
    )
    attach_spec(int8_model, dataclasses.replace(int8_spec, parity=parity))
    save_model(int8_model, candidate_path if rejected else int8_path)
    (int8_path if rejected else candidate_path).unlink(missing_ok=True)
    write_json(out / "parity.json", report)
    return ExportResult((fp32_path, candidate_path if rejected else int8_path), report, rejected)


def _installed_backends() -> list[str]:
    return [name for name in CPU_BACKENDS if importlib.util.find_spec(name)]


def _noise(bands: tuple[str, ...], input_hw: tuple[int, int]) -> FloatArray:
    """Returns a network input for the check of the conversion, where no image was given."""
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (1, len(bands), *input_hw)).astype(np.float32)
