"""Writes the INT8 file of one target from a floating-point model and its calibrated ranges.

One calibration serves all targets: a range [-m, m] becomes signed steps of m / 127, the same steps
around 128 for unsigned activations, and [0, m] becomes unsigned steps of m / 255. Weights are
signed, with a step per output channel, everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cclseg.errors import InputError

from .graph import (
    GraphIndex,
    attribute,
    check_names,
    copy_of,
    drop_unused_weights,
    opset_of,
)
from .half import attach_half_function, halve
from .operator import OP_TYPE, inline_function, name_plugin
from .plan import Plan, activation_inputs, plan_quantization
from .shield import shield_float_layers
from .targets import TargetRules, rules_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .calibrate import Ranges
    from .targets import Target

logger = logging.getLogger(__name__)

_OPSET_OF_HALF_STEPS = 19
_LARGEST_BIAS = 2**30
_SMALLEST_STEP = 1e-12


def emit(
    model: onnx.ModelProto,
    ranges: Ranges,
    *,
    target: Target,
    keep_float: Iterable[str] = (),
    plugin: bool | None = None,
    half: bool = False,
) -> onnx.ModelProto:
    """Writes a model with Q/DQ pairs as a target wants it.

    Args:
        model: The fp32 model; left unchanged. Its nodes have names of their own.
        ranges: Of :func:`~cclseg_export.calibrate.calibrate` on this model.
        target: Where the file shall run.
        keep_float: Names of nodes that stay in floating point.
        plugin: Whether a plug-in shall take the correlations (True) or standard operators take
            their place (False); None for what suits the target.
        half: Compute in 16 bits what is not in 8, for GPUs; input and output stay 32-bit.

    Returns:
        The quantised model, checked, without the spec.

    Raises:
        InputError: No such target or node, ranges of another model, operators too new, or 16 bits
            for a CPU.
    """
    rules = rules_of(target, plugin=plugin)
    work = copy_of(model)
    check_names(work)
    if half:
        work = _ready_for_half(work, target, rules)
    _check_opset(work, target, rules)
    del work.metadata_props[:]
    plan = plan_quantization(work, rules, keep_float=keep_float)
    _Writer(work, plan, ranges, rules, half=half).write()
    if rules.unsigned:
        shield_float_layers(work)
    drop_unused_weights(work)
    if half:
        halve(work)
    if rules.correlation == "plugin":
        name_plugin(work)
    elif rules.correlation == "inlined":
        work = inline_function(attach_half_function(work) if half else work)
    onnx.checker.check_model(work)
    logger.debug("%s: %d nodes and %d tensors quantised", target, len(plan.nodes), len(plan.pairs))
    return work


def _ready_for_half(model: onnx.ModelProto, target: str, rules: TargetRules) -> onnx.ModelProto:
    """Returns the model in an operator set whose Q/DQ nodes take and give 16 bits."""
    if rules.unsigned:
        raise InputError(
            f"the target '{target}' computes in 32 bits what is not in 8; a rest in 16 bits is for "
            "tensorrt and tensorrt-rtx"
        )
    if opset_of(model) >= _OPSET_OF_HALF_STEPS:
        return model
    converted: onnx.ModelProto = onnx.version_converter.convert_version(model, _OPSET_OF_HALF_STEPS)
    return converted


def _check_opset(model: onnx.ModelProto, target: str, rules: TargetRules) -> None:
    version = opset_of(model)
    if version > rules.newest_opset:
        raise InputError(
            f"the model uses operator set {version}, the target '{target}' reads up to "
            f"{rules.newest_opset}; export it with an older one"
        )


@dataclass(frozen=True, slots=True)
class _Steps:
    """How a tensor is written in 8 bits: ``value = (integer - zero) * step``."""

    step: np.float16 | np.float32
    zero: np.int8 | np.uint8


class _Writer:
    """Writes the pairs of a plan into a graph."""

    def __init__(
        self,
        model: onnx.ModelProto,
        plan: Plan,
        ranges: Ranges,
        rules: TargetRules,
        *,
        half: bool,
    ) -> None:
        self._graph = model.graph
        self._plan = plan
        self._rules = rules
        self._real = np.float16 if half else np.float32
        self._index = GraphIndex(model)
        self._written: list[onnx.NodeProto] = []
        self._stored: dict[str, TensorProto] = {}
        self._steps = {name: self._steps_of(plan.root(name), ranges) for name in plan.pairs}

    def write(self) -> None:
        """Replaces the nodes of the graph."""
        for info in self._graph.input:
            self._write_pair(info.name, made_as=info.name)
        for node in list(self._graph.node):
            self._write_node(node)
        del self._graph.node[:]
        self._graph.node.extend(self._written)
        self._graph.initializer.extend(self._stored.values())
        # What is known of a tensor that is now made of integers may no longer be true.
        del self._graph.value_info[:]

    def _write_node(self, node: onnx.NodeProto) -> None:
        quantized = node.name in self._plan.nodes
        maps = activation_inputs(node) if quantized else []
        names = list(node.input)
        for position, name in enumerate(names):
            if name in self._plan.pairs and (quantized or name in self._plan.integral):
                node.input[position] = f"{name}_dq"
        if quantized and node.op_type in self._rules.weighted:
            self._write_weights(node, names)
        if quantized and node.op_type == OP_TYPE:
            self._fold_into_correlation(node, maps)
            return
        made = {}
        for position, name in enumerate(node.output):
            # The name of an output of the graph must stay with the end of its pair.
            if name in self._plan.integral and name in self._index.outputs:
                node.output[position] = f"{name}_float"
            made[name] = node.output[position]
        self._written.append(node)
        for name, made_as in made.items():
            self._write_pair(name, made_as=made_as)

    def _write_pair(self, name: str, *, made_as: str) -> None:
        if name in self._plan.pairs:
            steps = self._store_steps(name)
            end = name if made_as != name else f"{name}_dq"
            self._write_op("QuantizeLinear", [made_as, *steps], f"{name}_q")
            self._write_op("DequantizeLinear", [f"{name}_q", *steps], end)

    def _write_weights(self, node: onnx.NodeProto, names: list[str]) -> None:
        """Stores the weights as signed integers with a step per output channel, and the bias."""
        weights = self._index.array(names[1])
        axis = _channel_axis(node, weights.ndim)
        others = tuple(i for i in range(weights.ndim) if i != axis)
        steps = np.maximum(np.abs(weights).max(others).astype(np.float64) / 127, _SMALLEST_STEP)
        has_bias = len(names) > 2 and bool(names[2])
        whole_bias = has_bias and self._rules.whole_chains and node.op_type == "Conv"
        input_step = float(self._steps[names[0]].step)
        if whole_bias:
            bias = self._index.array(names[2]).astype(np.float64)
            # A channel of tiny weights and a normal bias would overflow 32 bits.
            steps = np.maximum(steps, np.abs(bias) / (input_step * _LARGEST_BIAS))
        stored_steps = self._stored_as(steps)
        spread = stored_steps.reshape([-1 if i == axis else 1 for i in range(weights.ndim)])
        integers = np.clip(np.rint(weights / spread), -127, 127).astype(np.int8)
        zeros = np.zeros(len(steps), np.int8)
        node.input[1] = self._dequantized(
            f"{node.name}.weight", integers, stored_steps, zeros, axis
        )
        if whole_bias:
            bias_steps = (np.float32(input_step) * stored_steps).astype(np.float32)
            integers = np.rint(bias / bias_steps).astype(np.int32)
            zeros = np.zeros(len(steps), np.int32)
            node.input[2] = self._dequantized(f"{node.name}.bias", integers, bias_steps, zeros, 0)

    def _fold_into_correlation(self, node: onnx.NodeProto, maps: list[str]) -> None:
        """Lets a plug-in take and, where somebody wants integers, give integers."""
        node.input[:] = [f"{name}_q" for name in maps]
        values: dict[str, float | int] = {
            f"{place}_scale": float(self._steps[name].step)
            for place, name in zip("ab", maps, strict=True)
        }
        name = node.output[0]
        whole = name in self._plan.pairs and name not in self._index.outputs
        if whole:
            values |= {"out_dtype": TensorProto.INT8, "out_scale": float(self._steps[name].step)}
            node.output[0] = f"{name}_q"
        else:
            values["out_dtype"] = TensorProto.FLOAT
        node.attribute.extend(helper.make_attribute(key, value) for key, value in values.items())
        self._written.append(node)
        if whole:
            self._write_op(
                "DequantizeLinear", [f"{name}_q", *self._store_steps(name)], f"{name}_dq"
            )

    def _dequantized(
        self,
        name: str,
        integers: NDArray[np.signedinteger],
        steps: NDArray[np.floating],
        zeros: NDArray[np.signedinteger],
        axis: int,
    ) -> str:
        """Stores integers with their steps and returns the name of what they stand for."""
        names = [f"{name}_q", f"{name}_step", f"{name}_zero"]
        for stored, array in zip(names, (integers, steps, zeros), strict=True):
            self._store(stored, array)
        self._write_op("DequantizeLinear", names, f"{name}_dq", axis=axis)
        return f"{name}_dq"

    def _store_steps(self, name: str) -> list[str]:
        steps = self._steps[name]
        names = [f"{name}_step", f"{name}_zero"]
        self._store(names[0], np.asarray(steps.step))
        self._store(names[1], np.asarray(steps.zero))
        return names

    def _store(self, name: str, array: NDArray[np.generic]) -> None:
        self._stored[name] = numpy_helper.from_array(array, name)

    def _write_op(
        self, kind: str, inputs: list[str], output: str, *, axis: int | None = None
    ) -> None:
        node = helper.make_node(kind, inputs, [output], name=f"{output}_{kind}")
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self._written.append(node)

    def _stored_as(self, steps: Any) -> Any:  # noqa: ANN401 - a number or an array of them
        """Rounds steps to the type in which they are stored, before integers are chosen for them.

        A step below the smallest number of that type becomes that number.
        """
        return np.maximum(steps, np.finfo(self._real).smallest_subnormal).astype(self._real)

    def _steps_of(self, name: str, ranges: Ranges) -> _Steps:
        low, high = ranges.limits(name)
        if not self._rules.unsigned:
            # The images may pass the end by one step where this gives every pixel value a number.
            finest = (high - low) / 255
            largest = max(abs(low), abs(high))
            step = max(finest, (largest - finest) / 127) if low < 0 else largest / 127
            exact = name == ranges.input_name
            return _Steps(self._stored_as(step if exact else largest / 127), np.int8(0))
        if low >= 0:
            return _Steps(np.float32(high / 255), np.uint8(0))
        if name == ranges.input_name:
            step = (high - low) / 255
            return _Steps(np.float32(step), np.uint8(np.rint(np.clip(-low / step, 0, 255))))
        return _Steps(np.float32(max(-low, high) / 127), np.uint8(128))


def _channel_axis(node: onnx.NodeProto, dimensions: int) -> int:
    """Returns the axis of a weight along which its output channels run."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return dimensions - 1
