"""The wire reader on bytes that nobody wrote in good faith."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import field, varint

from cclseg.protobuf import DamagedError, Field, fields_of, numbers_of, read_varint, text_of


@given(st.integers(0, (1 << 64) - 1), st.binary(max_size=4))
def test_a_number_is_read_back(value, behind):
    data = varint(value) + behind
    assert read_varint(data, 0, len(data)) == (value, len(varint(value)))


@given(st.lists(st.tuples(st.integers(1, 1 << 28), st.binary(max_size=20)), max_size=8))
def test_fields_are_read_back(fields):
    data = b"".join(field(number, value) for number, value in fields)
    found = [(f.number, data[f.start : f.stop]) for f in fields_of(data, 0, len(data))]
    assert found == fields


@pytest.mark.parametrize("length", [5, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_length_beyond_the_end_reserves_nothing(length):
    data = b"\x0a" + varint(length) + b"text"
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError, match="bytes are missing"):
            list(fields_of(data, 0, len(data)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x0b", "wire type 3"),
        (b"\x02\x00", "field number 0"),
        (b"\x08" + b"\xff" * 20, "does not end"),
        (b"\x08\xff", "does not end"),
        (b"\x0d\x00", "3 bytes are missing"),
    ],
)
def test_what_is_no_message_is_named(data, message):
    with pytest.raises(DamagedError, match=message):
        list(fields_of(data, 0, len(data)))


def test_a_list_of_numbers_has_an_end():
    data = bytes(100)
    with pytest.raises(DamagedError, match="more than 32 numbers"):
        numbers_of(data, Field(1, 0, 0, 100), most=32)
    assert numbers_of(data, Field(1, 0, 0, 32), most=32) == [0] * 32


def test_a_text_that_is_not_utf_8_is_named():
    with pytest.raises(DamagedError, match="not UTF-8"):
        text_of(b"\xff\xfe", Field(1, 0, 0, 2))
