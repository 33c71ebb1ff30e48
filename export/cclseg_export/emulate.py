"""Lets ONNX Runtime compute what a file for another target computes there."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from .graph import attribute, copy_of
from .operator import OP_TYPE, attach_function


def runnable_anywhere(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of an emitted model that needs no plug-in: bodies take its correlations.

    The numbers are those that the plug-in gives, so that a file for a device that is not at hand
    can be measured.
    """
    work = copy_of(model)
    written: list[onnx.NodeProto] = []
    for node in work.graph.node:
        written.append(node)
        if node.op_type == OP_TYPE and attribute(node, "out_dtype", 0) == TensorProto.INT8:
            written.append(_quantized_behind(node, work))
    del work.graph.node[:]
    work.graph.node.extend(written)
    return attach_function(onnx.shape_inference.infer_shapes(work))


def _quantized_behind(node: onnx.NodeProto, model: onnx.ModelProto) -> onnx.NodeProto:
    """Lets a correlation give floating point, and returns the node that makes its integers."""
    integers = node.output[0]
    node.output[0] = f"{integers}_float"
    taker = next(n for n in model.graph.node if integers in n.input)
    return helper.make_node("QuantizeLinear", [node.output[0], *taker.input[1:]], [integers])
