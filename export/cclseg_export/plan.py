"""Decides which nodes of a graph are quantised and which tensors become integers. Changes nothing.

A *pair* is QuantizeLinear followed by DequantizeLinear: the mark that says "these numbers are
8-bit integers here". Libraries fuse the pairs around a node into an integer kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cclseg.errors import InputError
from cclseg.suggest import did_you_mean

from .graph import GraphIndex
from .operator import DOMAIN, OP_TYPE
from .shield import SHIELDED
from .targets import TARGETS, TargetRules, rules_of

if TYPE_CHECKING:
    import onnx

    from .targets import Target

JOINS = frozenset({"Add", "Concat"})
"""Operators that bring several maps together. Resize, AveragePool and Mul gain nothing on CPUs."""

MOVES = frozenset({"MaxPool", "DepthToSpace"})
"""Operators whose output holds values of their input: it keeps the input's scale."""

ACTIVATIONS = frozenset({"Clip", "Relu"})
"""Functions that a library folds into the layer before them and the integers behind them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is quantised.

    Attributes:
        nodes: Names of the quantised nodes.
        pairs: Tensors that get a pair.
        integral: Those of ``pairs`` that a quantised node makes, so that whoever takes them takes
            what the pair left of them.
        roots: For the output of a move, the tensor whose scale it shares.
    """

    nodes: frozenset[str]
    pairs: frozenset[str]
    integral: frozenset[str]
    roots: dict[str, str]

    def root(self, tensor: str) -> str:
        """Returns the tensor whose scale a tensor has."""
        while tensor in self.roots:
            tensor = self.roots[tensor]
        return tensor


def quantizable_nodes(model: onnx.ModelProto, *, target: Target = "cpu") -> tuple[str, ...]:
    """Names, in the order of the graph, the nodes that can be quantised or kept in floating point.

    Moves and activations are not among them; they follow the nodes before them.
    """
    nodes = plan_quantization(model, rules_of(target)).nodes
    return tuple(n.name for n in model.graph.node if n.name in nodes and n.op_type not in MOVES)


def calibrated_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names every tensor that a plan for any target may turn into integers, in graph order."""
    index = GraphIndex(model)
    found: dict[str, None] = {}
    for node in model.graph.node:
        if node.op_type in MOVES or any(
            _is_quantizable(node, index, rules) for rules in TARGETS.values()
        ):
            found |= dict.fromkeys(activation_inputs(node))
            found[_settled(node, index)] = None
    return tuple(found)


def plan_quantization(
    model: onnx.ModelProto, rules: TargetRules, *, keep_float: Iterable[str] = ()
) -> Plan:
    """Plans the quantisation of a graph.

    Args:
        model: The floating-point model; every node has a name of its own.
        rules: Of the target.
        keep_float: Names of nodes that stay in floating point.

    Raises:
        InputError: A name to keep is not that of a node.
    """
    index = GraphIndex(model)
    kept = set(keep_float)
    _check_names(kept, {node.name for node in model.graph.node})
    nodes: set[str] = set()
    integral: set[str] = set()  # what quantised nodes make, whether it gets a pair or not
    roots: dict[str, str] = {}
    for node in model.graph.node:
        if node.name in kept:
            continue
        if node.op_type in MOVES and node.input[0] in integral:
            roots[node.output[0]] = node.input[0]
        elif not _is_quantizable(node, index, rules):
            continue
        elif node.op_type in JOINS and integral.isdisjoint(node.input):
            continue  # numbers would be rounded only to be joined
        elif node.op_type == "Concat" and _has_float_taker(node, index, rules, kept):
            continue  # OpenVINO 2026.4 fails on a row that is read with a step per channel
        nodes.add(node.name)
        integral.add(_settled(node, index))
    pairs: set[str] = set()
    for node in model.graph.node:
        if node.name in nodes:
            pairs.update(_inputs_to_pair(node, index, rules, nodes))
            if rules.whole_chains:
                pairs.add(_settled(node, index))
    return Plan(frozenset(nodes), frozenset(pairs), frozenset(integral & pairs), roots)


def activation_inputs(node: onnx.NodeProto) -> list[str]:
    """Names the inputs of a quantizable node that are maps, not weights."""
    both = node.op_type in JOINS or node.op_type == OP_TYPE
    return list(node.input) if both else [node.input[0]]


def _check_names(kept: set[str], known: set[str]) -> None:
    for name in sorted(kept - known):
        raise InputError(
            f"no node '{name}' to keep in floating point; {did_you_mean(name, known)}"
            if len(known) < 20
            else f"no node '{name}' to keep in floating point; look the names up in the report "
            "of layers, or with a viewer of ONNX files"
        )


def _is_quantizable(node: onnx.NodeProto, index: GraphIndex, rules: TargetRules) -> bool:
    if (node.domain, node.op_type) == (DOMAIN, OP_TYPE):
        return rules.correlation == "plugin"
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in rules.weighted:
        return (
            node.input[1] in index.weights
            and node.input[0] not in index.weights
            and all(name in index.weights for name in node.input[2:] if name)
            and (node.op_type != "MatMul" or len(index.weights[node.input[1]].dims) == 2)
        )
    # A sum or row of maps, not the arithmetic of shapes or of a constant.
    return node.op_type in JOINS and index.maps.issuperset(node.input)


def _settled(node: onnx.NodeProto, index: GraphIndex) -> str:
    """Returns where the result of a node stands: behind its activation where it has one."""
    output = str(node.output[0])
    taker = index.only_consumer(output)
    if taker is not None and taker.op_type in ACTIVATIONS and taker.input[0] == output:
        return str(taker.output[0])
    return output


def _has_float_taker(
    node: onnx.NodeProto, index: GraphIndex, rules: TargetRules, kept: set[str]
) -> bool:
    """Tells whether a layer with weights, itself in floating point, takes what a node makes."""
    return rules.whole_chains and any(
        taker.op_type in SHIELDED
        and (taker.name in kept or not _is_quantizable(taker, index, rules))
        for taker in index.consumers.get(_settled(node, index), [])
    )


def _inputs_to_pair(
    node: onnx.NodeProto, index: GraphIndex, rules: TargetRules, nodes: set[str]
) -> list[str]:
    """Names the inputs of a quantised node that get a pair.

    TensorRT adds in the kernel of the convolution before: that one's output must reach the sum
    without a pair, and the other summand through one.
    """
    inputs = activation_inputs(node)
    if node.op_type != "Add" or rules.whole_chains:
        return inputs
    for position, name in enumerate(inputs):
        producer = index.producers.get(name)
        fused = (
            producer is not None
            and producer.name in nodes
            and producer.op_type in rules.weighted
            and index.only_consumer(name) is node
        )
        if fused:
            return inputs[:position] + inputs[position + 1 :]
    return inputs
