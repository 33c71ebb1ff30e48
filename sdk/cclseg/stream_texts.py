"""Texts that name sources and sinks: ``scheme://address#name=value,name=value``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from .errors import CclsegError, SourceError
from .suggest import did_you_mean


def split_text(
    text: str,
    readers: Mapping[str, Callable[[str], Any]],
    *,
    error: type[CclsegError] = SourceError,
) -> tuple[SplitResult, dict[str, Any]]:
    """Splits a text into its address and its options; see :func:`read_options`."""
    address, _, options = text.partition("#")
    try:
        url = urlsplit(address)
        _ = url.port  # raises for what is no port
    except ValueError as reason:
        raise error(f"{without_password(text)} cannot be read: {reason}") from reason
    return url, read_options(without_password(text), options, readers, error=error)


def without_password(text: str) -> str:
    """Returns a text for messages."""
    return re.sub(r"//[^/@]*@", "//***@", text)


def location_of(text: str) -> str:
    """Returns the address in a text so that GStreamer reads nothing else into it."""
    # Percent signs stay: they are the user's own escapes.
    return quote(text.partition("#")[0], safe=":/?&=%@[],;+~-._")


def read_options(
    text: str,
    options: str,
    readers: Mapping[str, Callable[[str], Any]],
    *,
    error: type[CclsegError] = SourceError,
) -> dict[str, Any]:
    """Reads options.

    Args:
        text: The whole text of the source or sink, for messages.
        options: The part of it with the options; empty parts between commas are passed over.
        readers: What turns each option's value into what it means, by name; a ValueError of it
            says in words what it expected.
        error: What is raised.

    Raises:
        SourceError: Or ``error``: a name is unknown, or a value cannot be read.
    """
    found: dict[str, Any] = {}
    for part in filter(None, options.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise error(f"{text}: '{part}' has no value; expected name=value")
        if name not in readers:
            raise error(f"{text}: unknown option '{name}'; {did_you_mean(name, readers)}")
        try:
            found[name] = readers[name](value)
        except ValueError as expected:
            raise error(f"{text}: {name} is '{value}'; expected {expected}") from expected
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
