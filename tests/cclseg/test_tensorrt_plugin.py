"""The TensorRT plugin without a GPU and without TensorRT, driven by a program of our own."""

from __future__ import annotations

import logging
import re
import subprocess
from pathlib import Path

import cuda_emulation
import numpy as np
import pytest
import tensorrt_plugin
from correlation_contract import CorrelationContract, Int8CorrelationContract
from cuda_emulation import packs_of_four
from native_libraries import built_once, native_plugin, skip_without_nvcc
from tensorrt_plugin import CHW4, LINEAR, ONNX_TYPES, TYPES, RefusedError

from cclseg import native_build_tensorrt
from cclseg.correlation import local_correlation
from cclseg.errors import BackendError
from cclseg.native_build_tensorrt import (
    build_tensorrt,
    find_headers,
    find_nvcc,
    find_tensorrt_library,
)

pytestmark = pytest.mark.skipif(not cuda_emulation.has_compiler(), reason="no g++ to compile with")

FLOAT, HALF, INT8 = TYPES["float32"], TYPES["float16"], TYPES["int8"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plugin")


@pytest.fixture(scope="session")
def driver(folder):
    program = built_once("plugin-driver", tensorrt_plugin.build_driver)
    library = built_once("emulated-plugin", tensorrt_plugin.build_emulated)
    return tensorrt_plugin.Driver(program, library, folder)


@pytest.fixture(scope="session")
def compiled_plugin():
    return native_plugin()


class PluginContract(CorrelationContract):
    """What enqueue computes, after the plugin was stored in an engine and loaded."""

    refusals = (RefusedError,)

    @pytest.fixture(autouse=True)
    def _driver(self, driver):
        self.driver = driver

    def run(self, a, b, *, radius, dilation=1, groups=1, normalize=False):
        if a.shape != b.shape:
            self.driver.ask("shapes", *a.shape, *b.shape, radius=radius)
        fields = {
            "radius": radius, "dilation": dilation, "groups": groups, "normalize": int(normalize),
        }  # fmt: skip
        out_shape = (a.shape[0], groups * (2 * radius + 1) ** 2, *a.shape[2:])
        found, _ = self.driver.correlate(
            a, b, out_shape=out_shape, out_type=self.dtype, fields=fields
        )
        return found


class TestEnqueueFloat32(PluginContract):
    pass


class TestEnqueueFloat16(PluginContract):
    # Sums are those of float32; the last step rounds to 11 bits, the definition's too.
    dtype, rtol = np.float16, 2**-10


class TestEnqueueInt8(Int8CorrelationContract):
    @pytest.fixture(autouse=True)
    def _driver(self, driver):
        self.driver = driver

    def run(self, a, b, *, scales, radius, dilation=1, groups=1, normalize=False):
        fields = {
            "radius": radius, "dilation": dilation, "groups": groups, "normalize": int(normalize),
            "a_scale": scales[0], "b_scale": scales[1],
        }  # fmt: skip
        out_shape = (a.shape[0], groups * (2 * radius + 1) ** 2, *a.shape[2:])
        found, _ = self.driver.correlate(
            packs_of_four(a), packs_of_four(b), logical_shape=a.shape, out_shape=out_shape,
            out_type=np.float32, fields=fields,
        )  # fmt: skip
        return found


def test_enqueue_writes_int8_results(driver):
    a, b = Int8CorrelationContract.maps((1, 8, 6, 16))
    fields = {"radius": 1, "a_scale": 0.1, "b_scale": 0.1, "out_scale": 0.5, "out_dtype": 3}
    found, _ = driver.correlate(a, b, out_shape=(1, 9, 6, 16), out_type=np.int8, fields=fields)
    steps = local_correlation(a * 0.1, b * 0.1, radius=1) / 0.5
    expected = np.clip(np.rint(steps), -128, 127)
    near_tie = np.abs(np.abs(steps) % 1 - 0.5) < 1e-5  # float32 may fall to the other side
    np.testing.assert_array_equal(found[~near_tie], expected[~near_tie])


@pytest.mark.parametrize(
    ("inputs", "out_dtype", "output"),
    [(FLOAT, 0, FLOAT), (HALF, 0, HALF), (HALF, ONNX_TYPES["float16"], HALF), (INT8, 0, FLOAT),
     (INT8, ONNX_TYPES["float32"], FLOAT), (INT8, ONNX_TYPES["float16"], HALF),
     (INT8, ONNX_TYPES["int8"], INT8)],
)  # fmt: skip
def test_output_types_are_exact(driver, inputs, out_dtype, output):
    answer = driver.ask("types", inputs, inputs, radius=1, out_dtype=out_dtype)
    assert answer == [[str(output)]]


@pytest.mark.parametrize(
    ("types", "fields", "reason"),
    [((FLOAT, HALF), {}, "got inputs of types 0 and 1"),
     ((3, 3), {}, "got inputs of types 3 and 3"),
     ((FLOAT, FLOAT), {"out_dtype": 3}, "got out_dtype 3 for floating inputs")],
)  # fmt: skip
def test_other_types_are_refused(driver, types, fields, reason):
    with pytest.raises(RefusedError, match=reason):
        driver.ask("types", *types, radius=1, **fields)


@pytest.mark.parametrize(
    ("inputs", "output"),
    [(((2, 8, 5, 7), (2, 8, 5, 7)), "2 75 5 7"),
     (((-1, 9, -1, -1), (-1, 9, -1, -1)), "-1 75 -1 -1"),
     (((1, -1, 64, -1), (1, -1, -1, 32)), "1 75 64 -1")],
)  # fmt: skip
def test_output_shapes(driver, inputs, output):
    a, b = inputs
    assert driver.ask("shapes", *a, *b, radius=2, groups=3) == [output.split()]


def test_formats_of_maps_and_result(driver):
    def combinations(map_type, **fields):
        lines = driver.ask("formats", map_type, radius=1, **fields)
        return {tuple(map(int, line)) for line in lines}

    assert combinations(FLOAT) == {(LINEAR, LINEAR, FLOAT, LINEAR)}
    assert combinations(HALF) == {(LINEAR, LINEAR, HALF, LINEAR)}
    assert combinations(INT8, out_dtype=3) == {
        (LINEAR, LINEAR, INT8, LINEAR),
        (CHW4, CHW4, INT8, LINEAR),
    }
    assert combinations(3) == set()  # int32


def test_fields_survive_storing_loading_and_cloning(driver):
    fields = {
        "radius": 3, "dilation": 2, "groups": 4, "normalize": 1, "out_dtype": 10,
        "a_scale": 0.125, "b_scale": 0.0625, "out_scale": 0.5,
    }  # fmt: skip
    stored, loaded, cloned = driver.ask("fields", **fields)
    assert stored == loaded == cloned == [f"{name}={value}" for name, value in fields.items()]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"radius": -1}, "got radius -1; expected 0 or more"),
     ({}, "got radius -1; expected 0 or more"),
     ({"radius": 1, "dilation": 0}, "got dilation 0"),
     ({"radius": 1, "groups": 0}, "got groups 0"),
     ({"radius": 1, "normalize": 2}, "got normalize 2"),
     ({"radius": 1, "out_dtype": 7}, "got out_dtype 7"),
     ({"radius": 1, "a_scale": 0.0}, "got scales 0, 1, 1"),
     ({"radius": 2**40}, "got the field 'radius' of type 10"),
     ({"radius": 1.5}, "got the field 'radius' of type 1"),
     ({"radius": 1, "radios": 2}, "got the field 'radios'")],
)  # fmt: skip
def test_fields_that_mean_nothing_are_refused(driver, fields, reason):
    with pytest.raises(RefusedError, match=reason):
        driver.ask("fields", **fields)


@pytest.mark.parametrize("map_type", ["float32", "float16", "int8"])
def test_the_life_of_a_plugin_is_clean_under_sanitizers(tmp_path, map_type):
    """Creation, questions, storing, loading, cloning, a launch and the end, with no byte leaked."""
    flags = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = built_once("sanitized-driver", lambda to: tensorrt_plugin.build_driver(to, *flags))
    library = built_once("sanitized-plugin", lambda to: tensorrt_plugin.build_emulated(to, *flags))
    driver = tensorrt_plugin.Driver(program, library, tmp_path)
    number = TYPES[map_type]
    fields = {"radius": 2, "dilation": 2, "groups": 2, "normalize": 1}
    assert driver.ask("types", number, number, **fields)
    assert driver.ask("shapes", 2, 4, -1, 21, 2, 4, -1, 21, **fields) == [["2", "50", "-1", "21"]]
    assert driver.ask("formats", number, **fields)
    assert len(driver.ask("fields", **fields)) == 3
    a, b = (np.random.default_rng(0).normal(size=(2, 2, 4, 9, 21)) * 20).astype(map_type)
    out_type = np.float32 if map_type == "int8" else map_type
    found, _ = driver.correlate(a, b, out_shape=(2, 50, 9, 21), out_type=out_type, fields=fields)
    expected = local_correlation(a.astype(np.float64), b.astype(np.float64), **fields)
    np.testing.assert_allclose(found, expected, rtol=2**-10, atol=2**-11)  # fp16 the coarsest


def test_the_compiled_library_needs_nothing_of_tensorrt_or_cuda(compiled_plugin):
    needed = subprocess.run(
        ["ldd", compiled_plugin], capture_output=True, text=True, check=True
    ).stdout
    assert "nvinfer" not in needed
    assert "cudart" not in needed
    assert "not found" not in needed


def test_a_compiled_library_is_found_again(compiled_plugin, tmp_path):
    assert find_tensorrt_library(compiled_plugin.parent) == compiled_plugin
    assert find_tensorrt_library(tmp_path) is None


def test_the_driver_gets_the_same_answers_from_the_compiled_library(driver, compiled_plugin):
    other = tensorrt_plugin.Driver(driver.program, compiled_plugin, driver.folder)
    for question in (("types", INT8, INT8), ("formats", INT8), ("fields",)):
        assert other.ask(*question, radius=2) == driver.ask(*question, radius=2)


@pytest.mark.slow
def test_no_kernel_spills_registers_on_any_supported_architecture(tmp_path, caplog, monkeypatch):
    """Compiles for all of them, as on a machine without a device."""
    skip_without_nvcc()
    monkeypatch.setattr("cclseg.native_build_tensorrt.read_cuda", lambda: None)
    caplog.set_level(logging.DEBUG, "cclseg.native_build_tensorrt")
    assert build_tensorrt(tmp_path).stat().st_size > 1_000_000
    kernels = re.findall(r"entry function 'cclseg_correlation_(\w+)' for 'sm_(\d+)'", caplog.text)
    spills = re.findall(r"(\d+) bytes spill stores", caplog.text)
    names = [f"{kind}_r{radius}" for kind in ("f32", "f16", "s8") for radius in range(5)]
    assert sorted(kernels) == sorted(
        (name, arch) for name in names for arch in ("75", "87", "89", "90", "100", "110", "120")
    )
    assert spills == ["0"] * len(kernels)


@pytest.fixture
def without_toolkit(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(native_build_tensorrt, "_USUAL_HOME", tmp_path / "none")


@pytest.mark.usefixtures("without_toolkit")
def test_without_nvcc_the_ways_to_get_it_are_named(monkeypatch):
    monkeypatch.setattr(native_build_tensorrt, "_NVCC_PACKAGE", "cclseg_no_such_package.cu13")
    with pytest.raises(BackendError, match=r"CUDA_HOME, or run: pip install 'cuda-toolkit"):
        find_nvcc()


@pytest.mark.usefixtures("without_toolkit")
def test_nvcc_of_a_python_package_is_found_where_no_toolkit_is(monkeypatch, tmp_path):
    nvcc = tmp_path / "toolkit" / "cu13" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(native_build_tensorrt, "_NVCC_PACKAGE", "toolkit.cu13")
    monkeypatch.syspath_prepend(tmp_path)
    assert Path(find_nvcc()) == nvcc


def test_a_wrong_tensorrt_root_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path))
    with pytest.raises(BackendError, match="holds no include/NvInferRuntime"):
        find_headers()


def test_headers_of_tensorrt_are_found_below_its_root(monkeypatch, tmp_path):
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "NvInferRuntime.h").write_text("")
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path))
    assert find_headers() == tmp_path / "include"


def test_architectures_that_nvcc_does_not_know_are_refused(tmp_path, compiled_plugin):
    with pytest.raises(BackendError, match=r"does not compile for sm_\[35\]"):
        build_tensorrt(tmp_path, architectures=[35, 87])
