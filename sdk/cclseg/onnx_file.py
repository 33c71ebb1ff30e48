"""Reads what an ONNX file says of itself, without the onnx package and without the weights.

An ONNX file is a protobuf message: a row of fields, each a key (number and wire type) and a value.
Only the few fields named below are followed; weights are skipped without being read. Every length
is checked against the bytes that are there, so a damaged file is an error and never a crash.
Field numbers are those of onnx.proto (github.com/onnx/onnx), which are frozen.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import BackendError
from .spec import METADATA_KEY, ModelSpec

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
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
    """

    metadata: Mapping[str, str]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    op_counts: Mapping[str, int]
    opsets: Mapping[str, int]
    parameters: int
    producer: str


def read_onnx(path: Path) -> OnnxFile:
    """Reads the description inside an ONNX file.

    Raises:
        BackendError: The file is missing, empty, cut off, or not ONNX.
    """
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise BackendError(f"{path} is empty (0 bytes); copy the model again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parsed_model(data)
    except OSError as error:
        raise BackendError(f"cannot read {path}: {error.strerror}; check the path") from error
    except _DamagedError as error:
        raise BackendError(
            f"{path} is no whole ONNX file ({error}); copy or export the model again"
        ) from error


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


class _DamagedError(Exception):
    """The bytes are not what a protobuf message of this kind may hold."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a message; ``data[start:stop]`` are its bytes, ``value`` that of a number."""

    number: int
    value: int
    start: int
    stop: int


def _varint(data: mmap.mmap, position: int, stop: int) -> tuple[int, int]:
    """Reads a base-128 number; returns it with the position behind it."""
    value = shift = 0
    while position < stop and shift < 70:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position
    raise _DamagedError(f"a number at byte {position} does not end")


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[_Field]:
    """Walks over the fields of the message in data[start:stop]."""
    position = start
    while position < stop:
        key, position = _varint(data, position, stop)
        number, wire_type = key >> 3, key & 7
        value, begin = 0, position
        if wire_type == _VARINT:
            value, position = _varint(data, position, stop)
        elif wire_type == _BYTES:
            length, begin = _varint(data, position, stop)
            position = begin + length
        elif wire_type in (_FIXED32, _FIXED64):
            position += 4 if wire_type == _FIXED32 else 8
        else:
            raise _DamagedError(f"wire type {wire_type} at byte {begin}")
        if number == 0:
            raise _DamagedError(f"field number 0 at byte {begin}")
        if position > stop:
            raise _DamagedError(f"{position - stop} bytes are missing behind byte {stop}")
        yield _Field(number, value, begin, position)


def _text(data: mmap.mmap, field: _Field) -> str:
    try:
        return data[field.start : field.stop].decode()
    except UnicodeDecodeError as error:
        raise _DamagedError(f"text at byte {field.start} is not UTF-8") from error


def _parsed_model(data: mmap.mmap) -> OnnxFile:
    metadata: dict[str, str] = {}
    opsets: dict[str, int] = {}
    producer = ["", ""]
    graph: _Field | None = None
    for field in _fields(data, 0, len(data)):
        if field.number in (2, 3):
            producer[field.number - 2] = _text(data, field)
        elif field.number == 7:
            graph = field
        elif field.number == 8:
            domain, version = _opset(data, field)
            opsets[domain] = version
        elif field.number == 14:
            key, value = _key_and_value(data, field)
            metadata[key] = value
    if graph is None:
        raise _DamagedError("it holds no graph")
    inputs, outputs, op_counts, parameters = _parsed_graph(data, graph)
    return OnnxFile(
        metadata, inputs, outputs, op_counts, opsets, parameters, " ".join(producer).strip()
    )


def _opset(data: mmap.mmap, message: _Field) -> tuple[str, int]:
    domain, version = "", 0
    for field in _fields(data, message.start, message.stop):
        if field.number == 1:
            domain = _text(data, field)
        elif field.number == 2:
            version = field.value
    return domain, version


def _key_and_value(data: mmap.mmap, message: _Field) -> tuple[str, str]:
    texts = {1: "", 2: ""}
    for field in _fields(data, message.start, message.stop):
        if field.number in texts:
            texts[field.number] = _text(data, field)
    return texts[1], texts[2]


def _parsed_graph(
    data: mmap.mmap, graph: _Field
) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...], dict[str, int], int]:
    ops: Counter[str] = Counter()
    inputs, outputs = [], []
    weights: set[str] = set()
    parameters = 0
    for field in _fields(data, graph.start, graph.stop):
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


def _op_name(data: mmap.mmap, node: _Field) -> str:
    kind = domain = ""
    for field in _fields(data, node.start, node.stop):
        if field.number == 4:
            kind = _text(data, field)
        elif field.number == 7:
            domain = _text(data, field)
    return f"{domain}.{kind}" if domain not in ("", "ai.onnx") else kind


def _weight(data: mmap.mmap, tensor: _Field) -> tuple[str, int]:
    """Returns the name and the number of elements of a stored tensor."""
    name, lengths = "", []
    for field in _fields(data, tensor.start, tensor.stop):
        if field.number == 1:
            lengths += _numbers(data, field)
        elif field.number == 8:
            name = _text(data, field)
    if len(lengths) > _MAX_AXES:
        raise _DamagedError(f"a weight of {len(lengths)} axes at byte {tensor.start}")
    return name, math.prod(lengths)


def _numbers(data: mmap.mmap, field: _Field) -> list[int]:
    """Reads a repeated number: one varint a field, or all of them packed into one field."""
    values, position = [], field.start
    while position < field.stop:
        value, position = _varint(data, position, field.stop)
        values.append(value)
    return values


def _value_info(data: mmap.mmap, message: _Field) -> TensorInfo:
    name, dtype = "", "unknown"
    shape: tuple[int | None, ...] = ()
    for field in _fields(data, message.start, message.stop):
        if field.number == 1:
            name = _text(data, field)
        elif field.number == 2:
            dtype, shape = _tensor_type(data, field)
    return TensorInfo(name, dtype, shape)


def _tensor_type(data: mmap.mmap, message: _Field) -> tuple[str, tuple[int | None, ...]]:
    """Reads TypeProto; sequences and maps come out as "unknown"."""
    dtype: str = "unknown"
    lengths: list[int | None] = []
    for tensor in _fields(data, message.start, message.stop):
        if tensor.number != 1:
            continue
        for field in _fields(data, tensor.start, tensor.stop):
            if field.number == 1:
                dtype = _ELEMENT_TYPES.get(field.value, f"type {field.value}")
            elif field.number == 2:
                lengths = [
                    _axis_length(data, axis)
                    for axis in _fields(data, field.start, field.stop)
                    if axis.number == 1
                ]
    return dtype, tuple(lengths)


def _axis_length(data: mmap.mmap, axis: _Field) -> int | None:
    for field in _fields(data, axis.start, axis.stop):
        if field.number == 1 and 0 < field.value < 1 << 31:
            return field.value
    return None


def _last_two(info: TensorInfo) -> tuple[int | None, int | None]:
    return (info.shape[-2], info.shape[-1]) if len(info.shape) == 4 else (None, None)
