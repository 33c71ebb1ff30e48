"""Reads what an ONNX file says of itself, without the onnx package and without the weights.

Only the few fields named below are followed, with :mod:`cclseg.protobuf`; weights are skipped.
Field numbers are those of onnx.proto (github.com/onnx/onnx), which are frozen.

A file is read once: what is checked is what a library then gets, whatever happens to the file.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import BackendError
from .onnx_external import ExternalData, check_external_data, find_external_data
from .protobuf import DamagedError, Field, fields_of, numbers_of, text_of
from .spec import METADATA_KEY, ModelSpec

_MAX_AXES = 32

_ELEMENT_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 16: "bfloat16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of a network.

    Attributes:
        name: Its name in the graph.
        dtype: Element type by its numpy name ("float32").
        shape: Length of each axis, None where the file leaves it open.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        axes = ", ".join("?" if length is None else str(length) for length in self.shape)
        return f"{self.name} ({axes}) {self.dtype}"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What an ONNX file says of itself.

    Attributes:
        metadata: The ``metadata_props``.
        inputs: Inputs of the graph, weights not counted.
        outputs: Outputs of the graph.
        op_counts: Number of nodes of each operator of the main graph; the domain stands before
            the name where it is not the standard one ("cclseg.LocalCorrelation").
        opsets: Version of each operator domain; the standard one is "".
        parameters: Number of stored weights.
        producer: Name and version of the program that wrote the file.
        external_data: Weights that stand in other files.
    """

    metadata: Mapping[str, str]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    op_counts: Mapping[str, int]
    opsets: Mapping[str, int]
    parameters: int
    producer: str
    external_data: tuple[ExternalData, ...]


def read_onnx(path: Path) -> OnnxFile:
    """Reads the description inside an ONNX file.

    Raises:
        BackendError: The file is missing, empty, cut off, or not ONNX.
    """
    return _described(path, _whole(path))


def load_onnx(path: Path) -> tuple[OnnxFile, bytes | Path]:
    """Reads an ONNX file for a library that will run it.

    Returns:
        Its description, and what the library is to load: the bytes that were described or, where
        weights stand in other files, which it must find by name, the path.

    Raises:
        BackendError: The file is missing, empty, cut off, not ONNX, or takes weights from what is
            no plain file in its own folder.
    """
    data = _whole(path)
    content = _described(path, data)
    if not content.external_data:
        return content, data
    check_external_data(path, content.external_data)
    return content, path


def spec_of(path: Path, content: OnnxFile) -> ModelSpec:
    """Returns the model spec inside an ONNX file.

    Files of other programs do not say how much smaller than the input their logits are, so that
    is taken from the shapes of the graph.

    Args:
        path: The file, for messages and as the model's name where it has none.
        content: What :func:`read_onnx` returned for it.

    Raises:
        SpecError: The file does not describe itself.
    """
    spec = ModelSpec.from_metadata(content.metadata, name=path.stem)
    if METADATA_KEY in content.metadata or len(content.inputs) != 1 or not content.outputs:
        return spec
    height, width = _last_two(content.inputs[0])
    if height and width:
        spec = dataclasses.replace(spec, input_hw=(height, width))
    logits_height = _last_two(content.outputs[0])[0]
    if logits_height:
        stride = max(1, spec.input_hw[0] // logits_height)
        spec = dataclasses.replace(spec, output_stride=stride)
    return spec


def _whole(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BackendError(f"cannot read {path}: {error.strerror}; check the path") from error
    if not data:
        raise BackendError(f"{path} is empty (0 bytes); copy the model again")
    return data


def _described(path: Path, data: bytes) -> OnnxFile:
    try:
        return _parsed_model(data)
    except DamagedError as error:
        raise BackendError(
            f"{path} is no whole ONNX file ({error}); copy or export the model again"
        ) from error


def _parsed_model(data: bytes) -> OnnxFile:
    metadata: dict[str, str] = {}
    opsets: dict[str, int] = {}
    producer = ["", ""]
    graph: Field | None = None
    for field in fields_of(data, 0, len(data)):
        if field.number in (2, 3):
            producer[field.number - 2] = text_of(data, field)
        elif field.number == 7:
            graph = field
        elif field.number == 8:
            domain, version = _opset(data, field)
            opsets[domain] = version
        elif field.number == 14:
            key, value = _key_and_value(data, field)
            metadata[key] = value
    if graph is None:
        raise DamagedError("it holds no graph")
    inputs, outputs, op_counts, parameters = _parsed_graph(data, graph)
    return OnnxFile(
        metadata=metadata,
        inputs=inputs,
        outputs=outputs,
        op_counts=op_counts,
        opsets=opsets,
        parameters=parameters,
        producer=" ".join(producer).strip(),
        external_data=find_external_data(data),
    )


def _opset(data: bytes, message: Field) -> tuple[str, int]:
    domain, version = "", 0
    for field in fields_of(data, message.start, message.stop):
        if field.number == 1:
            domain = text_of(data, field)
        elif field.number == 2:
            version = field.value
    return domain, version


def _key_and_value(data: bytes, message: Field) -> tuple[str, str]:
    texts = {1: "", 2: ""}
    for field in fields_of(data, message.start, message.stop):
        if field.number in texts:
            texts[field.number] = text_of(data, field)
    return texts[1], texts[2]


def _parsed_graph(
    data: bytes, graph: Field
) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...], dict[str, int], int]:
    ops: Counter[str] = Counter()
    inputs, outputs = [], []
    weights: set[str] = set()
    parameters = 0
    for field in fields_of(data, graph.start, graph.stop):
        if field.number == 1:
            ops[_op_name(data, field)] += 1
        elif field.number == 5:
            name, size = _weight(data, field)
            weights.add(name)
            parameters += size
        elif field.number == 11:
            inputs.append(_value_info(data, field))
        elif field.number == 12:
            outputs.append(_value_info(data, field))
    # Files older than IR version 4 list their weights among the inputs as well.
    inputs = [info for info in inputs if info.name not in weights]
    return tuple(inputs), tuple(outputs), dict(ops.most_common()), parameters


def _op_name(data: bytes, node: Field) -> str:
    kind = domain = ""
    for field in fields_of(data, node.start, node.stop):
        if field.number == 4:
            kind = text_of(data, field)
        elif field.number == 7:
            domain = text_of(data, field)
    return f"{domain}.{kind}" if domain not in ("", "ai.onnx") else kind


def _weight(data: bytes, tensor: Field) -> tuple[str, int]:
    """Returns the name and the number of elements of a stored tensor."""
    name, lengths = "", []
    for field in fields_of(data, tensor.start, tensor.stop):
        if field.number == 1:
            lengths += numbers_of(data, field, most=_MAX_AXES)
        elif field.number == 8:
            name = text_of(data, field)
    if len(lengths) > _MAX_AXES:
        raise DamagedError(f"a weight of {len(lengths)} axes at byte {tensor.start}")
    return name, math.prod(lengths)


def _value_info(data: bytes, message: Field) -> TensorInfo:
    name, dtype = "", "unknown"
    shape: tuple[int | None, ...] = ()
    for field in fields_of(data, message.start, message.stop):
        if field.number == 1:
            name = text_of(data, field)
        elif field.number == 2:
            dtype, shape = _tensor_type(data, field)
    return TensorInfo(name, dtype, shape)


def _tensor_type(data: bytes, message: Field) -> tuple[str, tuple[int | None, ...]]:
    """Reads TypeProto; sequences and maps come out as "unknown"."""
    dtype: str = "unknown"
    lengths: list[int | None] = []
    for tensor in fields_of(data, message.start, message.stop):
        if tensor.number != 1:
            continue
        for field in fields_of(data, tensor.start, tensor.stop):
            if field.number == 1:
                dtype = _ELEMENT_TYPES.get(field.value, f"type {field.value}")
            elif field.number == 2:
                lengths = [
                    _axis_length(data, axis)
                    for axis in fields_of(data, field.start, field.stop)
                    if axis.number == 1
                ]
    return dtype, tuple(lengths)


def _axis_length(data: bytes, axis: Field) -> int | None:
    for field in fields_of(data, axis.start, axis.stop):
        if field.number == 1 and 0 < field.value < 1 << 31:
            return field.value
    return None


def _last_two(info: TensorInfo) -> tuple[int | None, int | None]:
    return (info.shape[-2], info.shape[-1]) if len(info.shape) == 4 else (None, None)
