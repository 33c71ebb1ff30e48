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
import onnxruntime
from onnxruntime.quantization import CalibrationMethod, QuantType, create_calibrator
from onnxruntime.quantization.calibrate import CalibrationDataReader, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from cclseg.errors import InputError

from .to_onnx import INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from cclseg.frame import FloatArray
    from cclseg.spec import ModelSpec

logger = logging.getLogger(__name__)

FEWEST_IMAGES = 8
"""Calibration with fewer tiles is refused."""

QUANTIZED_OPS = ("Conv", "Clip", "Relu", "Add", "MaxPool", "DepthToSpace")
"""Operators that gain from INT8 on CPUs; Resize, AveragePool and the correlation do not."""

_ACTIVATIONS = ("Clip", "Relu")


class _Tiles(CalibrationDataReader):  # type: ignore[misc]
    """Hands tiles to the calibrator, one a call."""

    def __init__(self, tiles: Iterable[FloatArray]) -> None:
        self._tiles: Iterator[FloatArray] = iter(tiles)

    def get_next(self) -> dict[str, FloatArray] | None:
        tile = next(self._tiles, None)
        return None if tile is None else {INPUT_NAME: tile}


def calibrate(
    model: onnx.ModelProto,
    tiles: list[FloatArray],
    *,
    spec: ModelSpec,
    percentile: float | None = None,
) -> TensorsData:
    """Measures the range of every activation tensor on real tiles.

    The range of the input is not measured: it is that of 8-bit images, so that every pixel value
    of a model with one mean and deviation for all bands has an integer of its own.

    Args:
        model: The fp32 model.
        tiles: Network inputs, each (1, C, H, W) float32.
        spec: Means and deviations of the input.
        percentile: Share of magnitudes to keep in percent (99.99), None for the largest.

    Returns:
        Ranges per tensor name: symmetric, from 0 where a tensor cannot be negative, and that of
        8-bit images for the input.

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
    means, deviations = np.array(spec.mean), np.array(spec.std)
    symmetric[INPUT_NAME] = TensorData(
        lowest=np.array((-means / deviations).min(), np.float32),
        highest=np.array(((255 - means) / deviations).max(), np.float32),
    )
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
        nodes_to_quantize=_nodes_to_quantize(model, keep_float),
        nodes_to_exclude=[],
        op_types_to_quantize=list(QUANTIZED_OPS),
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    del quantized.metadata_props[:]
    onnx.checker.check_model(quantized)
    return quantized


def correct_bias(
    model: onnx.ModelProto, quantized: onnx.ModelProto, tiles: list[FloatArray]
) -> onnx.ModelProto:
    """Shifts the logits' bias by what quantisation adds to each class on average.

    Rounding errors do not average out behind activations, so a quantised network favours some
    classes slightly, and where two classes nearly tie, this decides (bias correction of
    arXiv:1906.04721, applied to the last layer, with measured instead of assumed statistics).

    Args:
        model: The fp32 model; its last node is the convolution that gives the logits.
        quantized: What :func:`to_int8_for_cpu` made of it.
        tiles: Network inputs of the calibration, each (1, C, H, W) float32.

    Returns:
        A copy of ``model`` with another last bias, to be quantised with the same ranges.
    """
    corrected: onnx.ModelProto = onnx.ModelProto.FromString(model.SerializeToString())
    head = next(n for n in corrected.graph.node if corrected.graph.output[0].name in n.output)
    if head.op_type != "Conv" or len(head.input) != 3:
        raise InputError(
            f"the logits come from a {head.op_type}; expected a convolution with bias, whose bias "
            "can be corrected"
        )
    before, after = (_mean_logits(m, tiles) for m in (model, quantized))
    stored = next(t for t in corrected.graph.initializer if t.name == head.input[2])
    bias = onnx.numpy_helper.to_array(stored) + (before - after)
    stored.CopyFrom(onnx.numpy_helper.from_array(bias.astype(np.float32), stored.name))
    logger.info("bias of the logits corrected by %s", np.round(before - after, 3).tolist())
    return corrected


def _mean_logits(model: onnx.ModelProto, tiles: list[FloatArray]) -> NDArray[np.float64]:
    """Returns the mean logit of each class (K,) over all tiles."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    means = [session.run(None, {INPUT_NAME: t})[0].mean(axis=(0, 2, 3)) for t in tiles]
    mean: NDArray[np.float64] = np.mean(means, axis=0, dtype=np.float64)
    return mean


def _nodes_to_quantize(model: onnx.ModelProto, keep_float: Iterable[str]) -> list[str]:
    """Names the nodes to quantise.

    ONNX Runtime's quantiser folds an activation into the range of its output and drops the node,
    even where nothing that takes this output is quantised and the range is never written
    (onnxruntime 1.32, ``try_replacing_upstream_output``); and a Clip that is no activation, as in
    the norms of the correlation, must not be touched. So an activation is quantised only between
    quantised nodes.
    """
    kept = set(keep_float)
    chosen = {
        node.name: node
        for node in model.graph.node
        if node.op_type in QUANTIZED_OPS and node.name not in kept
    }
    producers = {out: node.name for node in model.graph.node for out in node.output}
    consumers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node.name)
    for name, node in list(chosen.items()):
        if node.op_type in _ACTIVATIONS:
            neighbours = [producers.get(node.input[0]), *consumers.get(node.output[0], [])]
            if not all(neighbour in chosen for neighbour in neighbours):
                del chosen[name]
    return list(chosen)


def _symmetric(low: float, high: float) -> TensorData:
    magnitude = np.float32(max(abs(low), abs(high), 1e-6))
    lowest: NDArray[np.float32] = np.array(0 if low >= 0 else -magnitude, np.float32)
    return TensorData(lowest=lowest, highest=np.array(magnitude, np.float32))
