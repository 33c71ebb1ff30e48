"""Lets ONNX Runtime compute what a file for another target computes there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from .graph import GraphIndex, attribute, copy_of
from .operator import attach_function, correlation_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_THE_PLUGIN = frozenset({"a_scale", "b_scale", "out_scale", "out_dtype"})


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Opens a model in ONNX Runtime on all processors, without its warnings of speed."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def runnable_anywhere(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of an emitted model that needs no plug-in: bodies take its correlations.

    The numbers are those that the plug-in gives, so that a file for a device that is not at hand
    can be measured. All correlations are computed in 32 bits, from integers and 16 bits alike.
    """
    work = copy_of(model)
    if not correlation_nodes(work):
        return work
    index = GraphIndex(work)
    has_half = any(stored.data_type == TensorProto.FLOAT16 for stored in work.graph.initializer)
    correlations = {node.name for node in correlation_nodes(work)}
    written: list[onnx.NodeProto] = []
    for node in work.graph.node:
        if node.name in correlations:
            written += _in_float(node, index, has_half=has_half)
        else:
            written.append(node)
    del work.graph.node[:]
    work.graph.node.extend(written)
    return attach_function(onnx.shape_inference.infer_shapes(work))


def _in_float(
    node: onnx.NodeProto, index: GraphIndex, *, has_half: bool
) -> Iterator[onnx.NodeProto]:
    """Yields a correlation of 32-bit maps with what brings its inputs and output from and to."""
    output, out_dtype = node.output[0], attribute(node, "out_dtype", 0)
    for position, (place, name) in enumerate(zip("ab", list(node.input), strict=True)):
        maker = index.producers.get(name)
        if maker is not None and maker.op_type == "QuantizeLinear":
            step = _stored(node, f"{place}_scale", index)
            node.input[position] = f"{name}_{place}_of_{output}"
            yield helper.make_node("DequantizeLinear", [name, step], [node.input[position]])
        elif has_half:
            node.input[position] = f"{name}_{place}_of_{output}"
            yield helper.make_node("Cast", [name], [node.input[position]], to=TensorProto.FLOAT)
    after = []
    if out_dtype == TensorProto.INT8:
        zero = f"{output}_zero_point"
        index.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), zero))
        steps = [_stored(node, "out_scale", index), zero]
        after.append(helper.make_node("QuantizeLinear", [f"{output}_float", *steps], [output]))
    elif has_half:
        after.append(
            helper.make_node("Cast", [f"{output}_float"], [output], to=TensorProto.FLOAT16)
        )
    if after:
        node.output[0] = f"{output}_float"
    kept = [entry for entry in node.attribute if entry.name not in _OF_THE_PLUGIN]
    del node.attribute[:]
    node.attribute.extend(kept)
    yield node
    yield from after


def _stored(node: onnx.NodeProto, scale: str, index: GraphIndex) -> str:
    """Stores a scale of a node as a tensor and returns its name."""
    name = f"{node.output[0]}_{scale}"
    value = np.array(attribute(node, scale, 1.0), np.float32)
    index.graph.initializer.append(numpy_helper.from_array(value, name))
    return name
