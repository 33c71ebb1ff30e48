"""Metadata that somebody wrote in error or in bad faith: a spec or an error of ours, no more."""

import contextlib
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cclseg import spec_forms
from cclseg.errors import SpecError
from cclseg.spec import ModelSpec

GOOD = json.loads(ModelSpec(name="test", class_names=("land", "water"), gsd_m=0.3).to_json())
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
FOREIGN_KEYS = (
    "names", "class_names", "imgsz", "tiles_size", "stride", "tiles_overlap",
    "standardization_mean", "standardization_std",
)  # fmt: skip
EXTREMES = (
    "[" * 100_000, "(" * 100_000, "-" * 5000 + "1", "1" * 10_000, "0x" + "f" * 10_000,
    "1e999", "NaN", '{"class_names": ' + "[" * 50_000,
)  # fmt: skip


def test_every_attribute_of_a_spec_has_a_form():
    assert set(spec_forms._FORMS) == {field.name for field in dataclasses.fields(ModelSpec)}


@settings(max_examples=500)
@given(st.sampled_from(sorted(GOOD)), ANY_JSON)
def test_a_spec_that_is_accepted_can_be_written_again(key, value):
    with contextlib.suppress(SpecError):
        spec = ModelSpec.from_json(json.dumps(GOOD | {key: value}))
        assert ModelSpec.from_metadata(spec.to_metadata(), name="other") == spec


@settings(max_examples=500)
@given(
    st.dictionaries(
        st.sampled_from(FOREIGN_KEYS),
        ANY_JSON.map(json.dumps) | ANY_JSON.map(repr) | st.text(max_size=20),
    )
)
def test_metadata_of_other_programs_is_read_or_refused(metadata):
    with contextlib.suppress(SpecError):
        assert ModelSpec.from_metadata(metadata, name="foreign").class_names


@pytest.mark.parametrize("key", ["cclseg", "imgsz", "tiles_overlap", "names"])
@pytest.mark.parametrize("text", EXTREMES, ids=lambda text: text[:8])
def test_texts_that_overwhelm_parsers_are_refused(key, text):
    with pytest.raises(SpecError):
        ModelSpec.from_metadata({"names": "{0: 'a', 1: 'b'}"} | {key: text}, name="hostile")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", ["a"], "one line of text"),
        ("name", "\x1b]0;owned\x07", "one line of text"),
        ("description", "two\nlines", "one line of text"),
        ("class_names", "land", "a list of texts"),
        ("mean", ["127"] * 3, "a list of numbers"),
        ("output_stride", 2.5, "a whole number"),
        ("output_stride", True, "a whole number"),
        ("input_hw", [-512, 512], "in pixels"),
        ("palette", [[1, 2], 3], "a list of colours"),
        ("gsd_m", {}, "a number or null"),
        ("parity", [], "an object"),
    ],
)
def test_a_value_of_another_form_is_named(key, value, expected):
    with pytest.raises(SpecError, match=f"{key} = .*expected .*{expected}"):
        ModelSpec.from_json(json.dumps(GOOD | {key: value}))


def test_names_in_any_script_are_texts():
    names = ("Straße\u00a0/ Weg", "水", "می\u200cروم", "🏠")
    spec = ModelSpec(name="test", class_names=names)
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_a_tile_that_would_take_all_memory_is_refused():
    with pytest.raises(SpecError, match=r"expected \(height, width\), both in 1\.\.16384"):
        ModelSpec.from_json(json.dumps(GOOD | {"input_hw": [1 << 30, 1 << 30]}))


def test_nothing_in_metadata_is_evaluated(tmp_path):
    mark = tmp_path / "it-was-run"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    for key in FOREIGN_KEYS:
        with contextlib.suppress(SpecError):
            ModelSpec.from_metadata({"names": "{0: 'a'}"} | {key: code}, name="hostile")
    assert not mark.exists()
