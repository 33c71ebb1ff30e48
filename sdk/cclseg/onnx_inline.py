"""Puts the body of a model-local function in the place of its nodes, without the onnx package.

Some libraries know neither an operator of ours nor how to read its body from the file. Everything
else in the file is copied byte by byte. Field numbers are those of onnx.proto, which are frozen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .protobuf import DamagedError, Field, fields_of, text_of

_MOST_ADDED_BYTES = 1 << 26
_BYTES_TYPE = 2


@dataclass(slots=True)
class _Function:
    """FunctionProto, as far as it is followed.

    Attributes:
        inputs: Names of the inputs inside the body.
        outputs: Names of the outputs inside the body.
        nodes: The nodes of the body.
        defaults: Attributes that a node may leave out.
        opsets: Version of each operator domain in the body.
        size: Bytes of the message.
    """

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    nodes: list[Field] = field(default_factory=list)
    defaults: dict[str, Field] = field(default_factory=dict)
    opsets: dict[str, int] = field(default_factory=dict)
    size: int = 0


@dataclass(slots=True)
class _Node:
    """NodeProto, as far as it is followed."""

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    kind: str = ""
    domain: str = ""
    attributes: dict[str, Field] = field(default_factory=dict)


def inline_function(data: bytes, domain: str, name: str) -> bytes | None:
    """Returns a model in which the body of a function has taken the place of its nodes.

    Args:
        data: The content of an ONNX file.
        domain: Domain of the function.
        name: Its name, the operator of the nodes.

    Returns:
        The content of another ONNX file, None where the model holds no such function.

    Raises:
        DamagedError: The bytes are no whole model, or the body is of a kind that cannot be moved.
    """
    function: _Function | None = None
    kept: list[tuple[Field, bytes]] = []
    opsets: dict[str, int] = {}
    for part, raw in _with_bytes(data, 0, len(data)):
        if part.number == 25 and _identity(data, part) == (domain, name):
            function = _read_function(data, part)
            continue
        if part.number == 8:
            opsets.update([_opset(data, part)])
        kept.append((part, raw))
    if function is None:
        return None
    for used, version in function.opsets.items():
        if opsets.get(used, version) != version:
            raise DamagedError(
                f"the body of {domain}.{name} is of operator set {version}, the model of "
                f"{opsets[used]}"
            )
    return b"".join(
        _tagged(7, _inlined_graph(data, part, function, (domain, name)))
        if part.number == 7
        else raw
        for part, raw in kept
    )


def _inlined_graph(
    data: bytes, graph: Field, function: _Function, identity: tuple[str, str]
) -> bytes:
    pieces, count = [], 0
    for part, raw in _with_bytes(data, graph.start, graph.stop):
        node = _read_node(data, part) if part.number == 1 else None
        if node is None or (node.domain, node.kind) != identity:
            pieces.append(raw)
            continue
        count += 1
        if count * function.size > _MOST_ADDED_BYTES:
            raise DamagedError(f"the bodies of {count} nodes take more than {_MOST_ADDED_BYTES} B")
        prefix = f"{identity[1]}.{count}/"
        pieces += [_tagged(1, body) for body in _expanded(data, node, function, prefix)]
    return b"".join(pieces)


def _expanded(data: bytes, node: _Node, function: _Function, prefix: str) -> Iterator[bytes]:
    """Yields the nodes of the body, with the names and attributes of one node of the graph."""
    absent = [""] * (len(function.inputs) - len(node.inputs))
    names = dict(zip(function.inputs, [*node.inputs, *absent], strict=True)) | {"": ""}
    names |= {
        inside: outside
        for inside, outside in zip(function.outputs, node.outputs, strict=False)
        if outside
    }
    attributes = function.defaults | node.attributes
    for body in function.nodes:
        pieces = []
        for part, raw in _with_bytes(data, body.start, body.stop):
            if part.number in (1, 2):
                inside = text_of(data, part)
                pieces.append(_tagged(part.number, names.get(inside, prefix + inside).encode()))
            elif part.number == 3:
                pieces.append(_tagged(3, (prefix + text_of(data, part)).encode()))
            elif part.number == 5:
                pieces.append(_attribute(data, part, raw, attributes))
            else:
                pieces.append(raw)
        yield b"".join(pieces)


def _attribute(data: bytes, part: Field, raw: bytes, given: dict[str, Field]) -> bytes:
    """Returns an attribute of a body's node: itself, or what it refers to under its own name."""
    reference = name = ""
    for entry in fields_of(data, part.start, part.stop):
        if entry.number == 1:
            name = text_of(data, entry)
        elif entry.number == 21:
            reference = text_of(data, entry)
        elif entry.number in (6, 11):
            raise DamagedError("a function whose body holds a graph of its own")
    if not reference:
        return raw
    if reference not in given:
        return b""  # neither given nor with a default: the node of the body goes without it, too
    source = given[reference]
    values = (r for f, r in _with_bytes(data, source.start, source.stop) if f.number != 1)
    return _tagged(5, b"".join((_tagged(1, name.encode()), *values)))


def _identity(data: bytes, function: Field) -> tuple[str, str]:
    texts = {1: "", 10: ""}
    for part in fields_of(data, function.start, function.stop):
        if part.number in texts:
            texts[part.number] = text_of(data, part)
    return texts[10], texts[1]


def _read_function(data: bytes, message: Field) -> _Function:
    function = _Function(size=message.stop - message.start)
    for part in fields_of(data, message.start, message.stop):
        if part.number == 4:
            function.inputs.append(text_of(data, part))
        elif part.number == 5:
            function.outputs.append(text_of(data, part))
        elif part.number == 7:
            function.nodes.append(part)
        elif part.number == 9:
            function.opsets.update([_opset(data, part)])
        elif part.number == 11:
            function.defaults[_name_of(data, part)] = part
    return function


def _read_node(data: bytes, message: Field) -> _Node:
    node = _Node()
    for part in fields_of(data, message.start, message.stop):
        if part.number == 1:
            node.inputs.append(text_of(data, part))
        elif part.number == 2:
            node.outputs.append(text_of(data, part))
        elif part.number == 4:
            node.kind = text_of(data, part)
        elif part.number == 5:
            node.attributes[_name_of(data, part)] = part
        elif part.number == 7:
            node.domain = text_of(data, part)
    return node


def _name_of(data: bytes, attribute: Field) -> str:
    parts = fields_of(data, attribute.start, attribute.stop)
    return next((text_of(data, part) for part in parts if part.number == 1), "")


def _opset(data: bytes, message: Field) -> tuple[str, int]:
    domain, version = "", 0
    for part in fields_of(data, message.start, message.stop):
        if part.number == 1:
            domain = text_of(data, part)
        elif part.number == 2:
            version = part.value
    return domain, version


def _with_bytes(data: bytes, start: int, stop: int) -> Iterator[tuple[Field, bytes]]:
    """Walks over the fields of a message, each with its bytes, the key included."""
    for part in fields_of(data, start, stop):
        yield part, data[start : part.stop]
        start = part.stop


def _tagged(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES_TYPE) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
