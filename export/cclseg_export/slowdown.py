"""What it costs in time to keep a layer in floating point, estimated from its sizes.

A measurement would be of this machine, and the device is another one. What was measured once, with
ONNX Runtime on a processor with VNNI, one thread: in 8 bits a multiplication of a dense layer takes
a quarter of the time, a layer whose kernels are short (depthwise ones, the first one of three
bands) takes as long as before or longer, and turning a number to 8 bits or back takes as long as
15 multiplications save. For the 73 layers of a network this explains 0.9 of the variance.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from .emulate import open_session
from .graph import GraphIndex, copy_of, input_name
from .plan import activation_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cclseg.frame import FloatArray

_SHORT_KERNEL = 32
"""Numbers of a kernel below which integer arithmetic gains nothing."""

_MACS_PER_ELEMENT = 15
"""Multiplications whose gain is lost where a number turns from 8 bits to floating point or back."""


def slowdowns(model: onnx.ModelProto, nodes: Iterable[str], tile: FloatArray) -> dict[str, float]:
    """Estimates how much longer a network runs with one layer of it in floating point.

    Args:
        model: The fp32 model.
        nodes: Names of layers that can be quantised.
        tile: Network input (1, C, H, W) float32; free sizes are those that it gives.

    Returns:
        For each node its time, in that of a million multiply-accumulates; above 0.
    """
    index = GraphIndex(model)
    wanted = set(nodes)
    layers = [node for node in model.graph.node if node.name in wanted]
    shapes = _shapes(model, layers, tile)
    return {node.name: _slowdown(node, index, shapes) / 1e6 for node in layers}


def _slowdown(node: onnx.NodeProto, index: GraphIndex, shapes: dict[str, tuple[int, ...]]) -> float:
    maps = [*activation_inputs(node), node.output[0]]
    conversions = _MACS_PER_ELEMENT * sum(prod(shapes[name]) for name in maps)
    return _gaining_macs(node, index, shapes) + conversions


def _gaining_macs(
    node: onnx.NodeProto, index: GraphIndex, shapes: dict[str, tuple[int, ...]]
) -> float:
    """Returns the multiplications of a layer that 8 bits make faster; none in a sum of maps."""
    weight = index.weights.get(node.input[1]) if len(node.input) > 1 else None
    if weight is None:
        return 0
    # Each number of the weight is used at every place of the output, or of what is upsampled.
    seen = shapes[node.input[0] if node.op_type == "ConvTranspose" else node.output[0]]
    channels = seen[-1] if node.op_type in ("MatMul", "Gemm") else seen[1]
    kernel = prod(weight.dims) / channels
    return kernel * prod(seen) if kernel >= _SHORT_KERNEL else 0


def _shapes(
    model: onnx.ModelProto, layers: list[onnx.NodeProto], tile: FloatArray
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the maps that layers take and make, with this tile as input."""
    images = input_name(model)
    names = {name for node in layers for name in (*activation_inputs(node), node.output[0])}
    computed = sorted(names - {images})
    showing = copy_of(model)
    del showing.graph.output[:]
    showing.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in computed
    )
    arrays = open_session(showing).run(None, {images: tile})
    return {images: tile.shape} | {
        name: array.shape for name, array in zip(computed, arrays, strict=True)
    }
