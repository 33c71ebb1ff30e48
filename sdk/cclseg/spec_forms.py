"""What form each value of a model spec must have in a file.

The spec of a file is written by whoever made the file. A value of another form would meet the code
that uses it much later, in the field; so each is looked at when the file is read.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from .errors import SpecError

_LARGEST = 1e12
_MOST_ITEMS = 1 << 16
_UNFIT = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's names for control characters, halves of characters, ends of lines and paragraphs."""

Form = tuple[Callable[[Any], bool], str]
"""A test, and what is expected in words."""


def _is_text(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    # Line breaks and escape sequences would reach terminals and reports.
    return isinstance(value, str) and _UNFIT.isdisjoint(map(unicodedata.category, value))


def _is_number(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and -_LARGEST < value < _LARGEST  # not-a-number is neither


def _is_count(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return isinstance(value, int) and _is_number(value) and value >= 0


def _each(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, tuple) and len(value) <= _MOST_ITEMS and all(map(test, value))
    )


def _or_none(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or test(value)


_TEXT: Form = (_is_text, "one line of text")
_TEXTS: Form = (_each(_is_text), "a list of texts")
_NUMBER: Form = (_is_number, "a number")
_NUMBERS: Form = (_each(_is_number), "a list of numbers")
_COUNT: Form = (_is_count, "a whole number, 0 or more")

_FORMS: Mapping[str, Form] = {
    "name": _TEXT,
    "class_names": _TEXTS,
    "palette": (_each(_each(_is_count)), "a list of colours, each [red, green, blue]"),
    "bands": _TEXTS,
    "input_hw": (_each(_is_count), "[height, width] in pixels"),
    "mean": _NUMBERS,
    "std": _NUMBERS,
    "output_stride": _COUNT,
    "overlap": _NUMBER,
    "ignore_index": _COUNT,
    "precision": _TEXT,
    "gsd_m": (_or_none(_is_number), "a number or null"),
    "description": _TEXT,
    "version": _TEXT,
    "license": _TEXT,
    "trained_on": _TEXTS,
    "source_sha256": (_or_none(_is_text), "text or null"),
    "parity": (lambda value: isinstance(value, dict), "an object"),
}


def check_forms(values: Mapping[str, Any]) -> None:
    """Refuses values of a spec that have another form than theirs.

    Args:
        values: Attributes of a :class:`~cclseg.spec.ModelSpec`, lists as tuples.

    Raises:
        SpecError: Names the first such value, and what is expected.
    """
    for key, value in values.items():
        fits, expected = _FORMS[key]
        if not fits(value):
            raise SpecError(
                f"the model's metadata says {key} = {_shown(value)}; expected {expected}; correct "
                "it or export the model again"
            )


def _shown(value: Any) -> str:  # noqa: ANN401 - any JSON value
    try:
        return ascii(value)[:60]
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
