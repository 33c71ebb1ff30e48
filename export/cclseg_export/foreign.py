"""Segmentation networks of other programs, brought into the form that the toolchain takes."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

import onnx
import onnx.version_converter
import onnxslim
from onnx import TensorProto

from cclseg.backends.base import check_interface
from cclseg.errors import BackendError
from cclseg.onnx_file import load_onnx, spec_of

from .graph import opset_of
from .operator import DOMAIN, OP_TYPE, attach_function

if TYPE_CHECKING:
    from pathlib import Path

    from cclseg.spec import ModelSpec

logger = logging.getLogger(__name__)

OLDEST_OPSET, NEWEST_OPSET = 17, 21
"""Other operator sets are converted: these are read by every library of the last years."""

_STANDARD_DOMAINS = ("", "ai.onnx")
_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger"})


def load_foreign(path: Path, spec: ModelSpec | None = None) -> tuple[onnx.ModelProto, ModelSpec]:
    """Reads a floating-point ONNX file of any origin.

    Names of its input and output stay; outputs beside the logits are dropped, constants folded,
    and every node gets a name of its own.

    Args:
        path: An ONNX file with one input (N, C, H, W) float32, of fixed or free size.
        spec: What the network takes and gives; None for what the file says of itself.

    Returns:
        The checked and simplified model, and its spec.

    Raises:
        BackendError: The file is damaged, quantised already, or needs operators nobody here has.
        SpecError: No spec was given and the file does not describe itself, or the spec
            contradicts the network.
    """
    content, _ = load_onnx(path)  # refuses weights outside the model's folder
    spec = spec or spec_of(path, content)
    logits = check_interface(path, spec, content.inputs, content.outputs)
    model = onnx.load(path)
    _check_operators(path, model)
    _keep_output(model, logits.name)
    model = _converted(path, model)
    try:
        model = onnxslim.slim(model)
        attach_function(model)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BackendError(
            f"{path} is no valid network ({_first_line(error)}); export it again"
        ) from error
    _name_nodes(model)
    del model.metadata_props[:]
    logger.info("%s: %d nodes, input %s", path.name, len(model.graph.node), content.inputs[0])
    return model, spec


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    """Refuses what cannot be quantised or run."""
    bodies = {(function.domain, function.name) for function in model.functions}
    known = {*bodies, (DOMAIN, OP_TYPE)}
    strange = Counter(
        f"{node.domain}.{node.op_type}"
        for node in model.graph.node
        if node.domain not in _STANDARD_DOMAINS and (node.domain, node.op_type) not in known
    )
    if strange:
        listed = ", ".join(f"{name} ({count} x)" for name, count in strange.items())
        raise BackendError(
            f"{path} holds operators without a definition: {listed}; expected standard ONNX "
            f"operators and {DOMAIN}.{OP_TYPE}; export it without them"
        )
    found = {node.op_type for node in model.graph.node} & _QUANTIZED
    if found:
        raise BackendError(
            f"{path} is quantised already ({', '.join(sorted(found))}); give the floating-point "
            "model that it was made from"
        )
    narrow = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    if any(stored.data_type in narrow for stored in model.graph.initializer):
        raise BackendError(
            f"{path} holds 16-bit weights; give the 32-bit model that it was made from (16-bit "
            "and 8-bit files are made from that one)"
        )


def _keep_output(model: onnx.ModelProto, name: str) -> None:
    kept = next(info for info in model.graph.output if info.name == name)
    del model.graph.output[:]
    model.graph.output.append(kept)


def _converted(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """Brings the standard operators into the versions that all targets read."""
    version = opset_of(model)
    wanted = min(max(version, OLDEST_OPSET), NEWEST_OPSET)
    if wanted == version:
        return model
    try:
        converted: onnx.ModelProto = onnx.version_converter.convert_version(model, wanted)
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        raise BackendError(
            f"{path} uses operator set {version}, which cannot be converted to {wanted} "
            f"({_first_line(error)}); export it again with opset {OLDEST_OPSET} to {NEWEST_OPSET}"
        ) from error
    logger.info("%s: operator set %d converted to %d", path.name, version, wanted)
    return converted


def _name_nodes(model: onnx.ModelProto) -> None:
    """Names each node by its output where it has no name, or one that another has."""
    taken: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}:{next(name for name in node.output if name)}"
        taken.add(node.name)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
