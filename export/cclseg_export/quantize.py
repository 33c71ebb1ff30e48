"""Static INT8: calibrated once on real images, then written for a target.

Calibration finds, for every activation tensor, the largest magnitude that real images produce;
ranges are symmetric, [-m, m], or [0, m] where the tensor cannot be negative. Files for CPUs take
unsigned 8-bit activations over those ranges (zero point 0 or 128) and signed weights per output
channel: x86 and Arm dot-product instructions want exactly this pairing.
"""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType, create_calibrator
from onnxruntime.quantization.calibrate import CalibrationDataReader, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from cclseg.errors import InputError

from .to_onnx import INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from cclseg.frame import FloatArray

logger = logging.getLogger(__name__)

FEWEST_IMAGES = 8
"""Calibration with fewer tiles is refused."""

QUANTIZED_OPS = ("Conv", "Add", "Concat", "MaxPool", "DepthToSpace")
"""Operators that gain from INT8 on CPUs; Resize, AveragePool and the correlation do not."""


class _Tiles(CalibrationDataReader):  # type: ignore[misc]
    """Hands tiles to the calibrator, one a call."""

    def __init__(self, tiles: Iterable[FloatArray]) -> None:
        self._tiles: Iterator[FloatArray] = iter(tiles)

    def get_next(self) -> dict[str, FloatArray] | None:
        tile = next(self._tiles, None)
        return None if tile is None else {INPUT_NAME: tile}


def calibrate(
    model: onnx.ModelProto, tiles: list[FloatArray], *, percentile: float | None = None
) -> TensorsData:
    """Measures the range of every activation tensor on real tiles.

    Args:
        model: The fp32 model.
        tiles: Network inputs, each (1, C, H, W) float32.
        percentile: Share of magnitudes to keep in percent (99.99), None for the largest.

    Returns:
        Symmetric ranges per tensor name, non-negative tensors from 0.

    Raises:
        InputError: Too few tiles to say anything about a range.
    """
    if len(tiles) < FEWEST_IMAGES:
        raise InputError(
            f"calibration got {len(tiles)} tiles; expected at least {FEWEST_IMAGES} of real "
            "images; give a folder with more images"
        )
    method = CalibrationMethod.MinMax if percentile is None else CalibrationMethod.Percentile
    options = {} if percentile is None else {"percentile": percentile, "symmetric": False}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        calibrator = create_calibrator(
            path,
            op_types_to_calibrate=list(QUANTIZED_OPS),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=method,
            extra_options=options,
        )
        calibrator.collect_data(_Tiles(tiles))
        measured = calibrator.compute_data()
    logger.info("%d tensors calibrated on %d tiles", len(measured.data), len(tiles))
    symmetric = {
        name: _symmetric(*(float(np.asarray(v).min()) for v in data.range_value))
        for name, data in measured.data.items()
    }
    return TensorsData(CalibrationMethod.MinMax, symmetric)


def to_int8_for_cpu(
    model: onnx.ModelProto, ranges: TensorsData, *, keep_float: tuple[str, ...] = ()
) -> onnx.ModelProto:
    """Writes a model with Q/DQ pairs for CPUs: u8 activations, s8 weights per channel, s32 bias.

    Args:
        model: The fp32 model; left unchanged.
        ranges: Of :func:`calibrate`.
        keep_float: Names of nodes that stay in floating point.

    Returns:
        The quantised model, without the spec.
    """
    quantizer = QDQQuantizer(
        onnx.ModelProto.FromString(model.SerializeToString()),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=list(keep_float),
        op_types_to_quantize=list(QUANTIZED_OPS),
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
    )
    quantizer.quantize_model()
    quantized: onnx.ModelProto = quantizer.model.model
    del quantized.metadata_props[:]
    onnx.checker.check_model(quantized)
    return quantized


def _symmetric(low: float, high: float) -> TensorData:
    magnitude = np.float32(max(abs(low), abs(high), 1e-6))
    lowest: NDArray[np.float32] = np.array(0 if low >= 0 else -magnitude, np.float32)
    return TensorData(lowest=lowest, highest=np.array(magnitude, np.float32))
