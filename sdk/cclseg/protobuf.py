"""Reads the wire form of protobuf messages: a row of fields, each a key and a value.

The key holds the field's number and wire type. Every length is checked against the bytes that are
there and nothing is copied but texts, so damaged or hostile bytes are an error: they cannot crash
the reader, nor make it reserve memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BITS = 70


class DamagedError(Exception):
    """The bytes are not what a protobuf message of this kind may hold."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    Attributes:
        number: The field's number in its message.
        value: What it holds where it is a number, else 0.
        start: Place of its first byte.
        stop: Place behind its last byte.
    """

    number: int
    value: int
    start: int
    stop: int


def read_varint(data: bytes, position: int, stop: int) -> tuple[int, int]:
    """Reads a base-128 number; returns it with the position behind it."""
    value = shift = 0
    while position < stop and shift < _VARINT_BITS:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position
    raise DamagedError(f"a number at byte {position} does not end")


def fields_of(data: bytes, start: int, stop: int) -> Iterator[Field]:
    """Walks over the fields of the message in ``data[start:stop]``.

    Raises:
        DamagedError: The bytes are no message, or end within a field.
    """
    position = start
    while position < stop:
        key, position = read_varint(data, position, stop)
        number, wire_type = key >> 3, key & 7
        value, begin = 0, position
        if wire_type == _VARINT:
            value, position = read_varint(data, position, stop)
        elif wire_type == _BYTES:
            length, begin = read_varint(data, position, stop)
            position = begin + length
        elif wire_type in (_FIXED32, _FIXED64):
            position += 4 if wire_type == _FIXED32 else 8
        else:
            raise DamagedError(f"wire type {wire_type} at byte {begin}")
        if number == 0:
            raise DamagedError(f"field number 0 at byte {begin}")
        if position > stop:
            raise DamagedError(f"{position - stop} bytes are missing behind byte {stop}")
        yield Field(number, value, begin, position)


def text_of(data: bytes, field: Field) -> str:
    """Returns a text field.

    Raises:
        DamagedError: It is not UTF-8.
    """
    try:
        return data[field.start : field.stop].decode()
    except UnicodeDecodeError as error:
        raise DamagedError(f"text at byte {field.start} is not UTF-8") from error


def numbers_of(data: bytes, field: Field, *, most: int) -> list[int]:
    """Returns a repeated number: one of a field, or all of them packed into one field.

    Raises:
        DamagedError: More than ``most``, or the last one does not end.
    """
    values: list[int] = []
    position = field.start
    while position < field.stop:
        value, position = read_varint(data, position, field.stop)
        values.append(value)
        if len(values) > most:
            raise DamagedError(f"more than {most} numbers at byte {field.start}")
    return values
