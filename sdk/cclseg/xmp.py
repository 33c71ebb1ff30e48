"""XMP: what makers of drones write into photos as XML."""

from __future__ import annotations

from xml.parsers import expat

from .errors import InputError

_LIMIT_BYTES = 1 << 20
_SEPARATOR = " "


def read_xmp(packet: bytes, namespace: str) -> dict[str, str]:
    """Reads the simple properties of one namespace, written as attributes or as elements.

    A document type is refused, and with it every entity: XMP has none, and entities that expand
    to entities are how a small file takes a machine's memory.

    Args:
        packet: The XML, which may be padded.
        namespace: The namespace's address, as the packet spells it.

    Returns:
        Texts by name without prefix; what occurs twice has its first value.

    Raises:
        InputError: It is too large, no XML, or has a document type.
    """
    if len(packet) > _LIMIT_BYTES:
        raise InputError(f"XMP has {len(packet)} bytes; expected {_LIMIT_BYTES} at most")
    reader = _PropertyReader(f"{namespace}{_SEPARATOR}")
    parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
    parser.StartDoctypeDeclHandler = _refuse_document_type
    parser.StartElementHandler = reader.start
    parser.CharacterDataHandler = reader.text
    parser.EndElementHandler = reader.end
    try:
        parser.Parse(packet.strip(b"\0 \t\r\n"), True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter: an unknown encoding
        if isinstance(error, InputError):
            raise
        raise InputError(f"XMP is damaged: {error}; its properties are left out") from error
    return reader.found


def _refuse_document_type(*_: object) -> None:
    raise InputError("XMP has a document type, which it never needs; its properties are left out")


class _PropertyReader:
    """Collects the properties whose names begin with a prefix."""

    def __init__(self, prefix: str) -> None:
        self.found: dict[str, str] = {}
        self._prefix = prefix
        self._pieces: list[str] = []

    def start(self, _: str, attributes: dict[str, str]) -> None:
        self._pieces = []
        for name, value in attributes.items():
            self._keep(name, value)

    def text(self, piece: str) -> None:
        self._pieces.append(piece)

    def end(self, name: str) -> None:
        self._keep(name, "".join(self._pieces))
        self._pieces = []

    def _keep(self, name: str, value: str) -> None:
        if name.startswith(self._prefix):
            self.found.setdefault(name.removeprefix(self._prefix), value.strip())
