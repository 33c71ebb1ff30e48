"""16-bit floating point: half the file and, on GPUs, about half the time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cclseg.errors import InputError

from .graph import GraphIndex, copy_of, drop_unused_weights
from .operator import OP_TYPE, attach_function, correlation_nodes, remove_function

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_ALWAYS_FLOAT = frozenset({("Resize", 1), ("Resize", 2)})
"""Operators and positions of inputs that ONNX defines for 32 bits alone."""

_TYPES = frozenset({("Cast", "to"), (OP_TYPE, "out_dtype")})
"""Operators and attributes that name the type of what they give."""

_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).tiny)


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Writes a model with 16-bit weights and maps.

    Input and output stay 32-bit, so that whoever runs it need not care. Numbers beyond the range of
    16 bits are cut to it, and a lone constant, such as the one that keeps a division from zero,
    stays above it. A correlation that has its body sums in 32 bits.

    Args:
        model: The fp32 model; left unchanged.

    Returns:
        The 16-bit model, checked, without the spec.

    Raises:
        InputError: The model is quantised.
    """
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise InputError("the model is quantised; 16-bit files are made from the fp32 model")
    work = copy_of(model)
    del work.metadata_props[:]
    halve(work)
    attach_half_function(work)
    onnx.checker.check_model(work, full_check=True)
    return work


def halve(model: onnx.ModelProto) -> None:
    """Lets a model compute in 16 bits what is not in 8, in place; bodies of functions go.

    The steps of Q/DQ nodes must have 16 bits already: integers are chosen for them.
    """
    remove_function(model)
    del model.graph.value_info[:]
    index = GraphIndex(model)
    for node in model.graph.node:
        if not index.maps.isdisjoint(node.input):
            _take_half(node, index)
    _keep_interface(model)
    drop_unused_weights(model)


def attach_half_function(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives correlations of 16-bit maps their body, in place, and returns the model."""
    inputs = dict.fromkeys(name for node in correlation_nodes(model) for name in node.input)
    model.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, None) for name in inputs
    )
    return attach_function(model)


def _take_half(node: onnx.NodeProto, index: GraphIndex) -> None:
    """Lets a node that computes maps take its weights in 16 bits."""
    for position, name in enumerate(node.input):
        stored = index.weights.get(name)
        if stored is None or stored.data_type != TensorProto.FLOAT:
            continue
        if (node.op_type, position) not in _ALWAYS_FLOAT:
            half = f"{name}_half"
            if half not in index.weights:
                index.graph.initializer.append(numpy_helper.from_array(_halved(index, name), half))
                index.weights[half] = index.graph.initializer[-1]
            node.input[position] = half
    for entry in node.attribute:
        if (node.op_type, entry.name) in _TYPES and entry.i == TensorProto.FLOAT:
            entry.i = TensorProto.FLOAT16


def _halved(index: GraphIndex, name: str) -> NDArray[np.float16]:
    values: NDArray[np.float32] = index.array(name)
    if values.size == 1 and 0 < abs(values.item()) < _SMALLEST:
        values = np.full_like(values, np.copysign(_SMALLEST, values.item()))
    beyond = np.abs(values) > _LARGEST
    if beyond.any() and values.size > 1:
        logger.warning("%d weights of '%s' are beyond 16 bits and cut", beyond.sum(), name)
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float16)


def _keep_interface(model: onnx.ModelProto) -> None:
    """Casts the images to 16 bits and the logits back."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    before, after = [], []
    for info in graph.input:
        if info.name not in stored:
            before.append(_cast(info.name, f"{info.name}_half", TensorProto.FLOAT16))
            _rename(graph, info.name, f"{info.name}_half", outputs=False)
    for info in graph.output:
        _rename(graph, info.name, f"{info.name}_half", outputs=True)
        after.append(_cast(f"{info.name}_half", info.name, TensorProto.FLOAT))
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)


def _cast(source: str, result: str, element: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], name=f"{result}_cast", to=element)


def _rename(graph: onnx.GraphProto, old: str, new: str, *, outputs: bool) -> None:
    for node in graph.node:
        for names in (node.input, node.output) if outputs else (node.input,):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new
