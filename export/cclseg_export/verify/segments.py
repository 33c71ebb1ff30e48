"""Cuts a network into pieces whose every layer takes the same input in every library.

Run as a whole, small differences grow from layer to layer (in INT8 one step becomes ten), so where
a library goes wrong cannot be told from where it merely rounds otherwise. So each layer is given
what the reference computed before it, and what it makes of that is looked at alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

OUTPUT_MARK = "@out"
"""Stands behind the name of a tensor that a piece computes; without it, the name is an input."""

_STANDARD = ("", "ai.onnx")
_BYTES_IN_A_PIECE = 128 << 20
_UNKNOWN_BYTES = 16 << 20
_SHOWN_TYPES = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT8}
)


@dataclass(frozen=True, slots=True)
class Layer:
    """A node with a tensor that is compared.

    Attributes:
        node: The node.
        tensor: Its output.
        index: Place of the node in the graph.
    """

    node: onnx.NodeProto
    tensor: str
    index: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive layers that are run at once.

    Attributes:
        layers: What is compared.
        inputs: Tensors that the piece takes: the network's input, or layers of earlier pieces and
            of this one.
        finished: Tensors that no later piece takes.
    """

    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    finished: tuple[str, ...]


class Graph:
    """A network that can be cut; its input has one size.

    Args:
        model: The network; left unchanged.
        shape: Of its input.
    """

    def __init__(self, model: onnx.ModelProto, shape: Sequence[int]) -> None:
        self._network = onnx.ModelProto.FromString(model.SerializeToString())
        graph = self._network.graph
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        taken = [value for value in graph.input if value.name not in self._weights]
        self.input = taken[0].name
        axes = [onnx.TensorShapeProto.Dimension(dim_value=length) for length in shape]
        del taken[0].type.tensor_type.shape.dim[:]
        taken[0].type.tensor_type.shape.dim.extend(axes)
        self._producers = {name: node for node in graph.node for name in node.output if name}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in names_taken(node):
                self._consumers.setdefault(name, []).append(node)
        self._types = self._inferred()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the network gives."""
        return tuple(value.name for value in self._network.graph.output)

    def layers(self) -> tuple[Layer, ...]:
        """Returns what can be compared, in the graph's order.

        That is every number that follows from the input, in floating point or 8 bits, except what
        libraries fold: the two sides of a pair of Q and DQ around a layer that computes in INT8.
        """
        moving = {self.input}
        found = []
        for index, node in enumerate(self._network.graph.node):
            if moving.isdisjoint(names_taken(node)):
                continue
            moving.update(node.output)
            found += [
                Layer(node, name, index) for name in node.output if self._is_shown(node, name)
            ]
        return tuple(found)

    def pieces(self, layers: Sequence[Layer]) -> Iterator[Piece]:
        """Groups layers so that what a piece computes fits into memory."""
        known = {self.input, *(layer.tensor for layer in layers)}
        groups = list(self._groups(layers))
        taken = [tuple(sorted(self._needs(group, known) & known)) for group in groups]
        for index, (group, inputs) in enumerate(zip(groups, taken, strict=True)):
            later = {name for names in taken[index + 1 :] for name in names}
            here = {*inputs, *(layer.tensor for layer in group)}
            yield Piece(tuple(group), inputs, tuple(sorted(here - later)))

    def model_of(self, piece: Piece, arrays: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
        """Returns a network that computes each layer of a piece from given inputs.

        Args:
            piece: The layers.
            arrays: An array for each input of the piece, of the shape and type that it will have.

        Returns:
            A model that takes the piece's inputs and gives its layers' tensors, their names with
            :data:`OUTPUT_MARK` behind.
        """
        wanted = {layer.tensor for layer in piece.layers}
        return self._model(piece.inputs, wanted, arrays, mark=OUTPUT_MARK)

    def chain_of(self, piece: Piece, arrays: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
        """Returns a network that computes a piece from what earlier pieces gave.

        Args:
            piece: The layers.
            arrays: An array for each input of the piece that is no layer of its own.

        Returns:
            A model that gives the layers' tensors under their own names.
        """
        wanted = {layer.tensor for layer in piece.layers}
        inputs = tuple(name for name in piece.inputs if name not in wanted)
        return self._model(inputs, wanted, arrays, mark="")

    def _model(
        self,
        inputs: Sequence[str],
        wanted: set[str],
        arrays: Mapping[str, NDArray[Any]],
        *,
        mark: str,
    ) -> onnx.ModelProto:
        nodes, weights = self._nodes_for(wanted, set(inputs))
        taken = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(arrays[name].dtype), arrays[name].shape
            )
            for name in inputs
        ]
        given = [onnx.ValueInfoProto(name=name + mark) for name in sorted(wanted)]
        marked = [_with_marked_outputs(node, wanted, mark) for node in nodes]
        return helper.make_model(
            helper.make_graph(marked, "piece", taken, given, weights),
            opset_imports=self._network.opset_import,
            functions=self._network.functions,
            ir_version=self._network.ir_version,
        )

    def weight(self, name: str) -> NDArray[Any] | None:
        """Returns a stored tensor, None where the name is not that of one."""
        stored = self._weights.get(name)
        return None if stored is None else onnx.numpy_helper.to_array(stored)

    def _inferred(self) -> dict[str, onnx.TypeProto.Tensor]:
        try:
            inferred = onnx.shape_inference.infer_shapes(self._network, data_prop=True)
        except onnx.shape_inference.InferenceError as error:
            # Types and sizes only choose what is shown and how much at once.
            _log.info("shapes are not known before the network runs: %s", error)
            return {}
        infos = (*inferred.graph.value_info, *inferred.graph.output)
        return {info.name: info.type.tensor_type for info in infos}

    def _is_shown(self, node: onnx.NodeProto, name: str) -> bool:
        if not name:
            return False
        readers = self._consumers.get(name, [])
        if any(near.domain not in _STANDARD for near in (node, *readers)):
            return True  # the inputs and outputs of an operator of ours, to ask its definition
        kind = self._types[name].elem_type if name in self._types else TensorProto.FLOAT
        folded = node.op_type == "DequantizeLinear" or any(
            reader.op_type == "QuantizeLinear" for reader in readers
        )
        return kind in _SHOWN_TYPES and not (folded and name not in self.outputs)

    def _groups(self, layers: Sequence[Layer]) -> Iterator[list[Layer]]:
        group: list[Layer] = []
        size = 0
        for layer in layers:
            bytes_ = self._bytes_of(layer.tensor)
            if group and size + bytes_ > _BYTES_IN_A_PIECE:
                yield group
                group, size = [], 0
            group.append(layer)
            size += bytes_
        if group:
            yield group

    def _bytes_of(self, name: str) -> int:
        kind = self._types.get(name)
        if kind is None or not kind.elem_type or not kind.HasField("shape"):
            return _UNKNOWN_BYTES
        lengths = [axis.dim_value for axis in kind.shape.dim]
        itemsize = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).itemsize
        return math.prod(lengths) * itemsize or _UNKNOWN_BYTES

    def _needs(self, group: Sequence[Layer], known: set[str]) -> set[str]:
        """Returns the known tensors and all others from which a group follows."""
        wanted = {layer.tensor for layer in group}
        nodes, _ = self._nodes_for(wanted, known)
        return {name for node in nodes for name in names_taken(node)}

    def _nodes_for(
        self, wanted: set[str], given: set[str]
    ) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
        """Returns the nodes that compute tensors from given ones, in order, and their weights."""
        chosen: set[int] = set()
        weights: dict[str, TensorProto] = {}
        open_ends = [self._producers[name] for name in wanted]
        while open_ends:
            node = open_ends.pop()
            if id(node) in chosen:
                continue
            chosen.add(id(node))
            for name in names_taken(node):
                if name in self._weights:
                    weights[name] = self._weights[name]
                elif name not in given and name in self._producers:
                    open_ends.append(self._producers[name])
        nodes = [node for node in self._producers_in_order() if id(node) in chosen]
        return nodes, list(weights.values())

    def _producers_in_order(self) -> Iterator[onnx.NodeProto]:
        seen: set[int] = set()
        for node in self._producers.values():
            if id(node) not in seen:
                seen.add(id(node))
                yield node


def names_taken(node: onnx.NodeProto) -> set[str]:
    """Returns what a node reads, what its inner graphs read from outside included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inner = {name for child in graph.node for name in names_taken(child)}
            made = {name for child in graph.node for name in child.output}
            made |= {value.name for value in (*graph.input, *graph.initializer)}
            names |= inner - made
    return names


def _with_marked_outputs(node: onnx.NodeProto, wanted: set[str], mark: str) -> onnx.NodeProto:
    marked = onnx.NodeProto()
    marked.CopyFrom(node)
    for place, name in enumerate(marked.output):
        if name in wanted:
            marked.output[place] = name + mark
    return marked
