"""Takes back, in the logits' bias, what rounding shifts between the classes.

Rounding errors do not average out behind activations, so a quantised network favours some classes
slightly, and where two classes nearly tie, this decides. Correcting the last bias costs nothing
when the network runs (arXiv:1906.04721 corrects every layer by the mean of its error). The mean
error over all pixels says little of the few that nearly tie, though: here each class gets back the
share of the pixels that it had.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

from .emulate import open_session, runnable_anywhere
from .graph import GraphIndex, copy_of, input_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from cclseg.frame import FloatArray

logger = logging.getLogger(__name__)

_SIDE = 64
"""Pixels of each tile, across and down, that the correction looks at."""

_SHARPNESS = 20.0
"""Scale of logits of deviation 1 before the softmax: shares then are nearly those of the argmax,
and still change smoothly over as much as rounding moves a logit."""

_STEPS = 20
_HALVINGS = 8
_RIDGE = 1e-6


def correct_bias(
    model: onnx.ModelProto,
    quantized: onnx.ModelProto,
    tiles: Sequence[FloatArray],
    *,
    expected: FloatArray | None = None,
) -> onnx.ModelProto:
    """Shifts the logits' bias so that each class keeps its share of the pixels.

    Args:
        model: The fp32 model; its logits come from a convolution with bias, perhaps resized.
        quantized: What :func:`~cclseg_export.emit.emit` made of it, for any target.
        tiles: Network inputs of the calibration, each (1, C, H, W) float32.
        expected: What :func:`sampled_logits` says of ``model`` on these tiles, None to run it.

    Returns:
        A copy of ``model`` with another last bias, to be emitted with the same ranges. Where the
        logits come from something else, this is said as a warning and the bias stays as it is.
    """
    corrected = copy_of(model)
    head = _head(corrected)
    if head is None:
        logger.warning("no convolution with bias gives the logits: their bias is not corrected")
        return corrected
    before = sampled_logits(model, tiles) if expected is None else expected
    shift = matching_shift(before, sampled_logits(quantized, tiles))
    stored = next(t for t in corrected.graph.initializer if t.name == head.input[2])
    bias = numpy_helper.to_array(stored) + shift
    stored.CopyFrom(numpy_helper.from_array(bias.astype(np.float32), stored.name))
    logger.debug("bias of the logits corrected by %s", np.round(shift, 3).tolist())
    return corrected


def sampled_logits(model: onnx.ModelProto, tiles: Sequence[FloatArray]) -> FloatArray:
    """Returns logits (K, pixels) at the places of a grid over each tile; plug-ins not needed."""
    session = open_session(runnable_anywhere(model))
    name = input_name(model)
    sampled = []
    for tile in tiles:
        logits = session.run(None, {name: tile})[0][0]  # (K, H, W)
        rows, columns = (max(1, size // _SIDE) for size in logits.shape[1:])
        sampled.append(logits[:, ::rows, ::columns].reshape(len(logits), -1))
    return np.concatenate(sampled, axis=1)


def matching_shift(before: FloatArray, after: FloatArray) -> NDArray[np.float64]:
    """Returns what to add to logits so that each class has the share of pixels that it had.

    It minimises the cross-entropy of softmax(s * (after + shift)) against softmax(s * before), a
    convex function of the shift whose gradient is the difference of the shares.

    Args:
        before: (K, pixels) logits of the original.
        after: (K, pixels) logits to shift.

    Returns:
        (K,) shift, of sum 0.
    """
    scale = _SHARPNESS / max(float(before.std(axis=1).mean()), 1e-9)
    wanted, found = _softmax(scale * before)[0], scale * after.astype(np.float64)
    shift = np.zeros(len(before))
    entropy, shares = _cross_entropy(wanted, found, shift)
    for _ in range(_STEPS):
        gradient = (shares - wanted).mean(axis=1)
        curvature = np.diag(shares.mean(axis=1)) - shares @ shares.T / shares.shape[1]
        step = np.linalg.solve(curvature + _RIDGE * np.eye(len(shift)), gradient)
        for halving in range(_HALVINGS):
            tried = shift - step / 2**halving
            lower, tried_shares = _cross_entropy(wanted, found, tried)
            if lower < entropy:
                break
        else:
            break  # no step leads further down: this is the lowest place
        shift, entropy, shares = tried, lower, tried_shares
    centred: NDArray[np.float64] = (shift - shift.mean()) / scale
    return centred


def _cross_entropy(
    wanted: NDArray[np.float64], logits: NDArray[np.float64], shift: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Returns the cross-entropy of shifted logits against shares, and their softmax."""
    shifted = logits + shift[:, None]
    shares, log_sum = _softmax(shifted)
    return float((log_sum - (wanted * shifted).sum(axis=0)).mean()), shares


def _softmax(
    logits: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the softmax over the first axis, and the logarithm of its divisor."""
    largest = logits.max(axis=0)
    powers = np.exp(logits - largest, dtype=np.float64)
    total = powers.sum(axis=0)
    return powers / total, np.log(total) + largest


def _head(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """Returns the convolution whose bias reaches the logits unchanged."""
    index = GraphIndex(model)
    node = index.producers.get(model.graph.output[0].name)
    while node is not None and node.op_type in ("Resize", "Identity"):
        node = index.producers.get(node.input[0])
    if node is None or node.op_type != "Conv" or len(node.input) != 3:
        return None
    shared = len(index.consumers[node.input[2]]) > 1 or node.input[2] not in index.weights
    return None if shared else node
