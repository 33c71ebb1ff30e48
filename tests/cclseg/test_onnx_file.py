"""The ONNX reader against the onnx package, and against damage of every kind."""

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import brightest_band_spec, write_brightest_band, write_graph
from onnx import helper, numpy_helper

from cclseg.errors import BackendError, SpecError
from cclseg.onnx_file import OnnxFile, read_onnx, spec_of


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory):
    """A file with weights, an operator of ours and metadata."""
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "weight")
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("LocalCorrelation", ["c", "c"], ["logits"], domain="cclseg"),
    ]
    return write_graph(
        tmp_path_factory.mktemp("onnx") / "whole.onnx",
        nodes,
        inputs={"images": ["n", 3, 8, 8], "weight": [2, 3, 1, 1]},
        outputs={"logits": ["n", 2, None, 8]},
        metadata=brightest_band_spec().to_metadata() | {"key": "Grüße"},
        weights=[weight],
    )


def test_it_reads_what_the_onnx_package_reads(whole_file):
    content = read_onnx(whole_file)
    model = onnx.load(whole_file)
    assert content.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert content.op_counts == {"Relu": 2, "Conv": 1, "cclseg.LocalCorrelation": 1}
    assert content.opsets == {"": 17}
    assert content.parameters == 6
    assert content.producer == "tests"
    assert [str(info) for info in content.inputs] == ["images (?, 3, 8, 8) float32"]
    assert [str(info) for info in content.outputs] == ["logits (?, 2, ?, 8) float32"]


def test_a_spec_survives_the_file(tmp_path):
    spec = brightest_band_spec(gsd_m=0.3, parity={"miou": 0.5}, description="é")
    path = write_brightest_band(tmp_path / "a.onnx", spec)
    assert spec_of(path, read_onnx(path)) == spec


def test_shapes_of_a_foreign_file_complete_its_spec(tmp_path):
    metadata = {"names": "{0: 'a', 1: 'b', 2: 'c'}", "task": "semantic"}
    spec = brightest_band_spec(tile_hw=(64, 96))
    path = write_brightest_band(tmp_path / "foreign.onnx", spec, metadata=metadata)
    found = spec_of(path, read_onnx(path))
    assert (found.name, found.class_names) == ("foreign", ("a", "b", "c"))
    assert (found.input_hw, found.output_stride) == ((64, 96), 4)


def test_a_file_without_metadata_says_what_to_give(tmp_path):
    path = write_brightest_band(tmp_path / "bare.onnx", metadata={})
    with pytest.raises(SpecError, match=r"give a ModelSpec: Segmenter\(path, spec="):
        spec_of(path, read_onnx(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"not a model\n", "no whole ONNX file"),
        (b"\x08\x08", "no graph"),
    ],
)
def test_what_is_not_onnx_is_named(tmp_path, content, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BackendError, match=message):
        read_onnx(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(BackendError, match="No such file"):
        read_onnx(tmp_path / "absent.onnx")
    with pytest.raises(BackendError, match="directory"):
        read_onnx(tmp_path)


def test_a_file_cut_off_anywhere_is_an_error_or_lacks_its_tail(whole_file, tmp_path):
    data = whole_file.read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        try:
            content = read_onnx(path)
        except BackendError:
            continue
        assert content.metadata != read_onnx(whole_file).metadata or not content.opsets


@settings(deadline=None, max_examples=300)
@given(data=st.binary(min_size=1, max_size=200))
def test_random_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    path.write_bytes(data)
    with contextlib.suppress(BackendError):
        assert isinstance(read_onnx(path), OnnxFile)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_file_with_changed_bytes_is_read_or_refused(whole_file, tmp_path_factory, data):
    content = bytearray(whole_file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.onnx"
    path.write_bytes(content)
    with contextlib.suppress(BackendError, SpecError):
        spec_of(path, read_onnx(path))
