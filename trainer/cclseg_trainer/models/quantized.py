"""Fake quantisation: a network that rounds as its INT8 file will, and learns in spite of it.

Training runs on the merged form of a network, so that what is trained is what is exported. Weights
take 255 signed steps per output channel and activations 256 steps per tensor, at the places where
the exporter's file for CPUs has them: in front of and behind every convolution, sum and
concatenation, behind the activation where there is one. Gradients pass rounding unchanged and stop
where a value is clipped (straight-through estimator, arXiv:1308.3432). The arithmetic is that of
``torch.fake_quantize_*``; the planners of torch.ao, which are deprecated, and of torchao choose
other places.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..ops import local_correlation
from .adaptive import deform_conv2d
from .context import average_grid
from .indices import VegetationIndices
from .network import TRAINING_HEADS

if TYPE_CHECKING:
    from .network import NetworkOutput, SegmentationNetwork

_ACTIVATIONS = (F.relu, nn.ReLU, nn.ReLU6)
_JOINS = (operator.add, torch.cat)
_MOVES = (F.max_pool2d, F.pixel_shuffle, nn.MaxPool2d)
_NO_WORK = (nn.Identity, nn.Dropout2d)  # dropout is for learning labels, not for rounding
_WHOLE = (local_correlation, deform_conv2d, average_grid)  # their arithmetic depends on sizes

_MAGNITUDE_DECAY = 0.995
_SMALLEST_MAGNITUDE = 1e-6
_SMALLEST_WEIGHT_STEP = 1e-12


class QuantizedRange(nn.Module):
    """Rounds a tensor to 8 bits over the range that it was seen to have.

    In training mode the range follows the largest magnitude, as calibration would find it; what
    was seen long ago fades. The range is [0, m] where nothing below 0 was ever seen, else [-m, m].
    """

    magnitude: Tensor
    lowest: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("magnitude", torch.zeros(()))
        self.register_buffer("lowest", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, floating point -> the same shape, float32."""
        x = x.float()
        if self.training:
            self.observe(x.detach())
        signed = self.lowest < 0
        magnitude = self.magnitude.clamp_min(_SMALLEST_MAGNITUDE)
        step = magnitude / torch.where(signed, 127.0, 255.0)
        zero = torch.where(signed, 128, 0).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, step, zero, 0, 255)

    def observe(self, x: Tensor) -> None:
        """Widens the range to that of a tensor."""
        low, high = x.aminmax()
        self.magnitude.copy_(torch.maximum(_MAGNITUDE_DECAY * self.magnitude, high.maximum(-low)))
        self.lowest.copy_(self.lowest.minimum(low))


def quantized_weight(weight: Tensor) -> Tensor:
    """Rounds the weights of a convolution to signed 8 bits per output channel (axis 0)."""
    weight = weight.float()
    magnitudes = weight.detach().abs().flatten(1).amax(1)
    steps = (magnitudes / 127).clamp_min(_SMALLEST_WEIGHT_STEP)
    zeros = torch.zeros_like(steps, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, steps, zeros, 0, -127, 127)


class QuantizedNetwork(nn.Module):
    """A merged network whose weights and activations are rounded on the way.

    Args:
        network: Result of :func:`~cclseg_trainer.models.blocks.merged_for_inference`; its weights
            stay its own and are what is trained.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        # Merging leaves biases that stand for those of batch norms without a gradient.
        self.network = network.requires_grad_(True)
        self._graph = _traced(network)
        self._convolutions, tensors = _plan(self._graph, network)
        self.ranges = nn.ModuleDict({name: QuantizedRange() for name in tensors})

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Widens the ranges to those that images have without rounding, as the exporter does.

        Args:
            images: (N, C, H, W) normalised.
        """
        is_training = self.training
        _Measuring(self.eval()).run(images)
        self.train(is_training)

    def forward(self, x: Tensor) -> Tensor | NetworkOutput:
        """As :meth:`SegmentationNetwork.forward`."""
        output: NetworkOutput = _Rounding(self).run(x)
        return output if self.training else output.logits


class _Measuring(fx.Interpreter):
    """Runs the graph of a quantised network in floating point and notes what it says."""

    def __init__(self, quantized: QuantizedNetwork) -> None:
        super().__init__(quantized.network, graph=quantized._graph)
        self._ranges = quantized.ranges

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - as the base class
        value = super().run_node(n)
        if n.name in self._ranges:
            seen = self._ranges[n.name]
            assert isinstance(seen, QuantizedRange)
            seen.observe(value)
        return value


class _Rounding(fx.Interpreter):
    """Runs the graph of a quantised network and rounds what it says."""

    def __init__(self, quantized: QuantizedNetwork) -> None:
        super().__init__(quantized.network, graph=quantized._graph)
        self._ranges, self._convolutions = quantized.ranges, quantized._convolutions

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - as the base class
        value = super().run_node(n)
        return self._ranges[n.name](value) if n.name in self._ranges else value

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        if target not in self._convolutions:
            return super().call_module(target, args, kwargs)
        convolution = self.submodules[target]
        weight = quantized_weight(convolution.weight)
        return functional_call(convolution, {"weight": weight}, args, kwargs)


class _Tracer(fx.Tracer):
    """Keeps convolutions whole; the padding of some depends on the size of the image.

    Indices of bands are whole, too: no part of them is rounded.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_whole = isinstance(m, (nn.Conv2d, VegetationIndices))
        return is_whole or super().is_leaf_module(m, module_qualified_name)


def _traced(network: SegmentationNetwork) -> fx.Graph:
    """Returns the graph of a network in training mode, without what does not compute."""
    graph = _Tracer(autowrap_functions=_WHOLE).trace(network.train())
    for node in list(graph.nodes):
        if node.op == "call_module" and isinstance(
            network.get_submodule(str(node.target)), _NO_WORK
        ):
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)
    return graph


def _plan(graph: fx.Graph, network: nn.Module) -> tuple[frozenset[str], list[str]]:
    """Chooses what is rounded: modules that are convolutions, and the names of graph nodes."""
    modules = dict(network.named_modules())

    def is_one(node: fx.Node, kinds: tuple[Any, ...]) -> bool:
        if node.op == "call_module":
            return type(modules[str(node.target)]) in kinds
        return node.op == "call_function" and node.target in kinds

    convolutions = {
        node
        for node in graph.nodes
        if node.op == "call_module"
        and isinstance(modules[str(node.target)], nn.Conv2d)
        and str(node.target).split(".")[0] not in TRAINING_HEADS
    }
    chosen: dict[fx.Node, None] = {}
    on_grid: set[fx.Node] = set()  # rounded already, or moved from where it was
    integral: set[fx.Node] = set()  # made by what computes in integers
    for node in graph.nodes:
        if is_one(node, _MOVES):
            for kept in (on_grid, integral):
                if node.all_input_nodes[0] in kept:
                    kept.add(node)
        if node not in convolutions and not is_one(node, _JOINS):
            continue
        if node not in convolutions and integral.isdisjoint(node.all_input_nodes):
            continue  # numbers would be rounded only to be joined
        taken = [n for n in node.all_input_nodes if n not in on_grid and n.op != "placeholder"]
        users = list(node.users)
        settled = users[0] if len(users) == 1 and is_one(users[0], _ACTIVATIONS) else node
        chosen |= dict.fromkeys((*taken, settled))
        on_grid.update((*taken, settled))
        integral.add(settled)
    return frozenset(str(node.target) for node in convolutions), [node.name for node in chosen]
