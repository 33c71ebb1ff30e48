"""Looking up who makes and who takes a tensor of an ONNX graph."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper, numpy_helper

from cclseg.errors import InputError

_SHAPES = frozenset({"Shape", "Size"})


class GraphIndex:
    """The tensors of a graph by name; valid until the graph is changed.

    Attributes:
        graph: The graph.
        producers: The node that makes a tensor; inputs and weights have none.
        consumers: The nodes that take a tensor, each once.
        weights: Stored tensors.
        outputs: Names of the graph's outputs.
        maps: Tensors computed from the images, their shapes and what follows from those left out.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.producers = {name: node for node in self.graph.node for name in node.output if name}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in dict.fromkeys(node.input):
                self.consumers.setdefault(name, []).append(node)
        self.weights = {stored.name: stored for stored in self.graph.initializer}
        self.outputs = {info.name for info in self.graph.output}
        self.maps = {info.name for info in self.graph.input} - self.weights.keys()
        for node in self.graph.node:
            if node.op_type not in _SHAPES and not self.maps.isdisjoint(node.input):
                self.maps.update(node.output)

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """Returns the node that alone sees a tensor, None where several or the caller do."""
        takers = self.consumers.get(name, [])
        return takers[0] if len(takers) == 1 and name not in self.outputs else None

    def array(self, name: str) -> Any:  # noqa: ANN401 - an array of any type
        """Returns a stored tensor as a numpy array."""
        return numpy_helper.to_array(self.weights[name])


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy that shares nothing with the model."""
    copied: onnx.ModelProto = onnx.ModelProto.FromString(model.SerializeToString())
    return copied


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:  # noqa: ANN401 - any attribute
    """Returns the value of a node's attribute, or the default where the node has none."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def check_names(model: onnx.ModelProto) -> None:
    """Refuses a graph whose nodes cannot be told apart by their names.

    Raises:
        InputError: A node has no name, or that of another.
    """
    seen: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in seen:
            raise InputError(
                f"a {node.op_type} node is called '{node.name}'; expected a name of its own for "
                "each node: load foreign files with load_foreign, which names them"
            )
        seen.add(node.name)


def opset_of(model: onnx.ModelProto) -> int:
    """Returns the version of the standard operators that a model imports."""
    return int(next(e.version for e in model.opset_import if e.domain in ("", "ai.onnx")))


def input_name(model: onnx.ModelProto) -> str:
    """Returns the name of the images: the first input that is no stored tensor."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return next(str(info.name) for info in model.graph.input if info.name not in stored)


def drop_unused_weights(model: onnx.ModelProto) -> None:
    """Removes stored tensors that no node takes, in place."""
    taken = {name for node in model.graph.node for name in node.input}
    taken |= {info.name for info in model.graph.output}
    kept = [stored for stored in model.graph.initializer if stored.name in taken]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
