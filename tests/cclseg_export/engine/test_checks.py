"""What is refused before a build."""

from __future__ import annotations

import pytest
from networks import write_graph
from onnx import helper

from cclseg.errors import BackendError, InputError, SinkError
from cclseg.native_build_tensorrt import find_nvcc, find_tensorrt_library
from cclseg.onnx_file import read_onnx
from cclseg.ops_build import native_folder
from cclseg_export.engine.checks import check_options, check_room, find_plugin, timing_cache
from cclseg_export.engine.options import BuildOptions


def test_a_model_larger_than_the_free_disk_is_refused(tmp_path):
    model = tmp_path / "huge.onnx"
    with model.open("wb") as file:
        file.truncate(1 << 43)  # takes no room itself
    with pytest.raises(SinkError, match=r"MB free; an engine of huge\.onnx needs about 8796093\.0"):
        check_room(tmp_path / "out" / "m.engine", model)
    model.write_bytes(b"small")
    check_room(tmp_path / "out" / "m.engine", model)


@pytest.mark.parametrize(
    "options",
    [{"hardware_compatibility": "ampere-plus"}, {"version_compatible": True}, {"dla_core": 0}],
)
def test_what_only_tensorrt_has_is_refused_for_rtx(options):
    with pytest.raises(InputError, match="leave"):
        check_options("tensorrt-rtx", BuildOptions(**options))
    check_options("tensorrt", BuildOptions(**options))


@pytest.fixture
def correlation(tmp_path):
    node = helper.make_node("LocalCorrelation", ["a", "b"], ["out"], domain="cclseg", radius=1)
    shape = [1, 4, 8, 8]
    path = write_graph(
        tmp_path / "m.onnx", [node], inputs={"a": shape, "b": shape},
        outputs={"out": [1, 9, 8, 8]}, domains=("cclseg",),
    )  # fmt: skip
    return read_onnx(path)


def test_a_network_without_the_correlation_needs_no_plugin(network):
    assert find_plugin(read_onnx(network), BuildOptions()) is None


def test_a_plugin_that_is_named_is_taken(correlation, tmp_path):
    compiled = tmp_path / "compiled.so"
    compiled.write_bytes(b"")
    assert find_plugin(correlation, BuildOptions(plugin=compiled)) == compiled
    with pytest.raises(InputError, match="there is no plugin"):
        find_plugin(correlation, BuildOptions(plugin=tmp_path / "absent.so"))


def test_without_a_plugin_and_a_compiler_both_ways_are_named(correlation, tmp_path, monkeypatch):
    monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    try:
        pytest.skip(f"nvcc stands in its usual place: {find_nvcc()}")
    except BackendError:
        assert find_tensorrt_library(native_folder()) is None
    with pytest.raises(BackendError, match=r"its plugin is not compiled: found no nvcc.*--plugin"):
        find_plugin(correlation, BuildOptions())


def test_times_that_are_named_are_taken_and_rtx_has_none_of_its_own(tmp_path):
    named = tmp_path / "kernels.timing"
    assert timing_cache(BuildOptions(timing_cache=named), "tensorrt-rtx", None) == named
    assert timing_cache(BuildOptions(), "tensorrt-rtx", None) is None
