"""What each layer costs when it is computed in 8 bits, measured one layer at a time.

All other layers stay in floating point, so that the maps one layer reads and its weights are
rounded and nothing else. Errors of different layers are nearly uncorrelated, their powers add up,
and the layers with the lowest signal-to-noise ratio at the logits are those to keep in floating
point first. No labels are needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .emit import emit
from .emulate import open_session, runnable_anywhere
from .graph import input_name
from .plan import quantizable_nodes
from .slowdown import slowdowns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx

    from cclseg.frame import FloatArray

    from .calibrate import Ranges
    from .targets import Target

_QUIETEST_DB = 200.0
"""Stands for a layer whose rounding changes nothing; infinity has no JSON form."""


_SMALLEST_POWER = 1e-30


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What one layer costs in 8 bits.

    Attributes:
        node: Name of its node, as ``--keep-float`` takes it.
        op: Its operator.
        module: Path of the module in the checkpoint that its weights come from ("" if none).
        snr_db: Power of the logits over that of the error which this layer alone adds.
        share: Part of the summed error power of all layers, in 0..1.
        slowdown: Time that it loses in floating point, in that of a million
            multiply-accumulates; see :mod:`~cclseg_export.slowdown`.
    """

    node: str
    op: str
    module: str
    snr_db: float
    share: float
    slowdown: float


def layer_costs(
    model: onnx.ModelProto,
    ranges: Ranges,
    nodes: Mapping[str, Target],
    tiles: Sequence[FloatArray],
    *,
    on_layer: Callable[[int, int], None] | None = None,
) -> list[LayerCost]:
    """Measures the error at the logits that each layer adds, and estimates the time it saves.

    Args:
        model: The fp32 model.
        ranges: Of the calibration.
        nodes: Names of the nodes in question, each with a target that computes it in 8 bits.
        tiles: Network inputs, each (1, C, H, W) float32.
        on_layer: Called after each layer with (done, total).

    Returns:
        One entry per node, the costliest first.
    """
    expected = _logits(model, tiles)
    signal = float(np.mean([np.square(logits).mean() for logits in expected]))
    noise: dict[str, float] = {}
    for done, (name, target) in enumerate(nodes.items(), start=1):
        found = _logits(quantized_alone(model, ranges, name, target), tiles)
        errors = [np.square(f - e).mean() for f, e in zip(found, expected, strict=True)]
        error = float(np.mean(errors))
        # Rounding can turn a divisor into 0. Such a layer drowns the signal.
        noise[name] = error if math.isfinite(error) else max(signal, _SMALLEST_POWER)
        if on_layer:
            on_layer(done, len(nodes))
    total = sum(noise.values()) or 1.0
    by_name = {node.name: node for node in model.graph.node}
    slowdown = slowdowns(model, nodes, tiles[0])
    return [
        LayerCost(
            node=name,
            op=by_name[name].op_type,
            module=_module(by_name[name]),
            snr_db=_decibel(signal, noise[name]),
            share=noise[name] / total,
            slowdown=slowdown[name],
        )
        for name in sorted(nodes, key=lambda name: -noise[name])
    ]


def quantized_alone(
    model: onnx.ModelProto, ranges: Ranges, name: str, target: Target
) -> onnx.ModelProto:
    """Returns the model with one node in 8 bits as for a target, without plug-ins and spec."""
    others = [node for node in quantizable_nodes(model, target=target) if node != name]
    return runnable_anywhere(emit(model, ranges, target=target, keep_float=others))


def _logits(model: onnx.ModelProto, tiles: Sequence[FloatArray]) -> list[FloatArray]:
    session = open_session(model)
    return [session.run(None, {input_name(model): tile})[0] for tile in tiles]


def _module(node: onnx.NodeProto) -> str:
    """Returns the module that a node's weight is named after."""
    weight = node.input[1] if len(node.input) > 1 else ""
    return weight.removesuffix(".weight") if weight.endswith(".weight") else ""


def _decibel(signal: float, noise: float) -> float:
    if noise <= 0:
        return _QUIETEST_DB
    return min(_QUIETEST_DB, 10 * math.log10(max(signal, _SMALLEST_POWER) / noise))
