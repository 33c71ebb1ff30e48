"""Keeps ONNX Runtime from rounding the weights of layers that stay in floating point.

Where a Conv, ConvTranspose or Gemm takes a map that one step brings back from 8 bits, ONNX Runtime
since 1.21 rounds its weights to 8 bits itself, with one step for all channels
(https://github.com/microsoft/onnxruntime/pull/22969): a layer that was left in floating point for
its accuracy loses more than it would by steps per channel. It leaves alone what takes a map with a
step per channel. So such a layer reads its map through a DequantizeLinear of its own, with the one
step written once for each channel: the same numbers in every library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .graph import GraphIndex, attribute

if TYPE_CHECKING:
    import onnx

SHIELDED = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""Operators whose weights ONNX Runtime would round."""


def shield_float_layers(model: onnx.ModelProto) -> None:
    """Gives each float layer that takes 8-bit numbers a step per channel for them, in place.

    A map of one channel has one step either way; a layer that takes it stays as it is.

    Args:
        model: A model with Q/DQ pairs.
    """
    index = GraphIndex(model)
    written: list[onnx.NodeProto] = []
    made: set[str] = set()
    for node in model.graph.node:
        pair_end = _pair_end(node, index)
        if pair_end is not None:
            axis, channels = _channels(node, index)
            name = f"{node.input[0]}_by_channel"
            if channels > 1:
                if name not in made:
                    written.append(_by_channel(pair_end, name, index, axis=axis, channels=channels))
                    made.add(name)
                node.input[0] = name
        written.append(node)
    del model.graph.node[:]
    model.graph.node.extend(written)
    _drop_untaken_pair_ends(model)


def _pair_end(node: onnx.NodeProto, index: GraphIndex) -> onnx.NodeProto | None:
    """Returns what brings the map of a float layer back from 8 bits by one step, None if none."""
    if node.op_type not in SHIELDED or node.input[1] not in index.weights:
        return None
    has_float = index.weights[node.input[1]].data_type == TensorProto.FLOAT
    source = index.producers.get(node.input[0])
    if not has_float or source is None or source.op_type != "DequantizeLinear":
        return None
    return source if index.array(source.input[1]).size == 1 else None


def _channels(node: onnx.NodeProto, index: GraphIndex) -> tuple[int, int]:
    """Returns along which axis of its map a layer has channels, and how many."""
    dims = index.weights[node.input[1]].dims
    if node.op_type == "Gemm":
        axis = 0 if attribute(node, "transA", 0) else 1
        return axis, int(dims[1] if attribute(node, "transB", 0) else dims[0])
    if node.op_type == "ConvTranspose":
        return 1, int(dims[0])
    return 1, int(dims[1]) * int(attribute(node, "group", 1))


def _by_channel(
    pair_end: onnx.NodeProto, name: str, index: GraphIndex, *, axis: int, channels: int
) -> onnx.NodeProto:
    """Returns a DequantizeLinear that writes the one step of another out for each channel."""
    inputs = [pair_end.input[0]]
    for stored, kind in zip(pair_end.input[1:], ("step", "zero"), strict=False):
        repeated = np.repeat(index.array(stored), channels)
        index.graph.initializer.append(numpy_helper.from_array(repeated, f"{name}_{kind}"))
        inputs.append(f"{name}_{kind}")
    return helper.make_node(
        "DequantizeLinear", inputs, [name], name=f"{name}_DequantizeLinear", axis=axis
    )


def _drop_untaken_pair_ends(model: onnx.ModelProto) -> None:
    taken = {name for node in model.graph.node for name in node.input}
    taken |= {info.name for info in model.graph.output}
    kept = [
        node
        for node in model.graph.node
        if node.op_type != "DequantizeLinear" or node.output[0] in taken
    ]
    del model.graph.node[:]
    model.graph.node.extend(kept)
