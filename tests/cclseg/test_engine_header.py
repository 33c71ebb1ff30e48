"""What files named like engines turn out to be."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg.engine_header import foreign_content, ultralytics_header


def with_ultralytics_header(plan, **content):
    text = json.dumps(content).encode()
    return struct.pack("<i", len(text)) + text + plan


def test_an_engine_of_ultralytics_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "yolo.engine"
    path.write_bytes(with_ultralytics_header(b"ptrt", task="segment", imgsz=[640, 640], stride=32))
    answer = foreign_content(path)
    assert "an engine of Ultralytics (task segment, imgsz [640, 640])" in answer
    assert "yolo export format=onnx" in answer
    assert answer.endswith("cclseg build yolo.onnx")


def test_a_network_renamed_to_an_engine_is_recognised(network, tmp_path):
    path = tmp_path / "model.engine"
    path.write_bytes(network.read_bytes())
    assert foreign_content(path).startswith("is an ONNX file; name it model.onnx")


@pytest.mark.parametrize(
    ("content", "answer"),
    [(b"", "is empty (0 bytes)"), (b"PK\x03\x04rest", "PyTorch checkpoint"),
     (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
     (b"<!DOCTYPE html>", "web page")],
)  # fmt: skip
def test_other_files_are_named(tmp_path, content, answer):
    path = tmp_path / "model.engine"
    path.write_bytes(content)
    assert answer in foreign_content(path)


def test_a_missing_file_is_said(tmp_path):
    assert foreign_content(tmp_path / "no.engine").startswith("cannot be read: No such file")


@pytest.mark.parametrize("magic", [b"ptrt", b"ftrt", b"vtrt\x00\x00\x00\x00"])
def test_plans_are_left_to_the_other_checks(tmp_path, magic):
    path = tmp_path / "model.engine"
    path.write_bytes(magic + bytes(100))
    assert foreign_content(path) is None


@given(st.binary(max_size=64))
def test_any_bytes_have_an_answer(head):
    assert ultralytics_header(head) is None or isinstance(ultralytics_header(head), dict)


@given(st.dictionaries(st.text(), st.integers() | st.text()), st.binary())
def test_every_header_is_read(content, plan):
    assert ultralytics_header(
        with_ultralytics_header(plan, **{k: v for k, v in content.items()})
    ) == json.loads(json.dumps(content))


@given(st.integers(-(2**31), 2**31 - 1), st.binary(max_size=40))
def test_a_length_that_reaches_beyond_the_file_is_no_header(length, rest):
    head = struct.pack("<i", length) + b"{" + rest
    header = ultralytics_header(head)
    assert header is None or length <= len(rest) + 1
