"""Words of the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg.errors import InputError
from cclseg_export.engine.options import parse_bytes, parse_shape


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GiB", 2 << 30), ("512 MiB", 512 << 20), ("1.5gib", 3 << 29), ("4GB", 4 * 10**9),
     ("100", 100), (" 7 KiB ", 7 << 10)],
)  # fmt: skip
def test_amounts_of_memory(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "-1", "2 parsecs", "1e9", "0", "0.1", "2 GiB 3", "٣"])
def test_other_amounts_are_refused(text):
    with pytest.raises(InputError, match="expected"):
        parse_bytes(text)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6), st.sampled_from(["", "x", "a:b"]))
def test_shapes(sizes, name):
    text = "x".join(map(str, sizes))
    assert parse_shape(f"{name}:{text}" if name else text) == (name, tuple(sizes))


@pytest.mark.parametrize("text", ["", "x", "1x", "1x-3", "1,3,512,512", "0x3", "images:", "1x3x?"])
def test_other_shapes_are_refused(text):
    with pytest.raises(InputError, match="expected a shape such as"):
        parse_shape(text)
