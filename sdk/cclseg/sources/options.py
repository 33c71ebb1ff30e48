"""Options in the text of a source: ``name=value,name=value``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import SourceError
from ..suggest import did_you_mean


def read_options(
    text: str, options: str, readers: Mapping[str, Callable[[str], Any]]
) -> dict[str, Any]:
    """Reads the options of a source.

    Args:
        text: The whole text of the source, for messages.
        options: The part of it with the options; empty parts between commas are passed over.
        readers: What turns each option's value into what it means, by name; a ValueError of it
            says in words what it expected.

    Raises:
        SourceError: A name is unknown, or a value cannot be read.
    """
    found: dict[str, Any] = {}
    for part in filter(None, options.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise SourceError(f"{text}: '{part}' has no value; expected name=value")
        if name not in readers:
            raise SourceError(f"{text}: unknown option '{name}'; {did_you_mean(name, readers)}")
        try:
            found[name] = readers[name](value)
        except ValueError as error:
            raise SourceError(f"{text}: {name} is '{value}'; expected {error}") from error
    return found


def whole(value: str) -> int:
    """Reads a whole number of at most seven digits."""
    if not (value.isascii() and value.isdecimal() and len(value) <= 7):
        raise ValueError("a whole number")
    return int(value)


def number(value: str) -> float:
    """Reads a number."""
    try:
        return float(value)
    except ValueError as error:
        raise ValueError("a number") from error


def size(value: str) -> tuple[int, int]:
    """Reads WIDTHxHEIGHT as (height, width)."""
    width, _, height = value.partition("x")
    try:
        return whole(height), whole(width)
    except ValueError as error:
        raise ValueError("WIDTHxHEIGHT") from error


def one_of(*words: str) -> Callable[[str], str]:
    """Returns what reads one of some words."""

    def read(value: str) -> str:
        if value not in words:
            raise ValueError(" or ".join(words))
        return value

    return read
