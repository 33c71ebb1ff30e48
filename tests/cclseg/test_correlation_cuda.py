"""The CUDA kernels, emulated on the CPU, against the definition; their plans and compilers."""

from __future__ import annotations

import ctypes
import re

import cuda_emulation
import numpy as np
import pytest
from correlation_contract import CorrelationContract, Int8CorrelationContract, normal_maps
from cuda_emulation import packs_of_four
from hypothesis import given, settings
from hypothesis import strategies as st
from native_libraries import built_once

from cclseg.correlation import local_correlation
from cclseg.correlation_cuda import Correlation, CudaCorrelation, compile_kernel, plan_launch
from cclseg.cuda_devices import read_cuda
from cclseg.errors import CudaError, InputError, MissingDependencyError
from cclseg.gpu.nvrtc import Nvrtc

pytestmark = pytest.mark.skipif(
    not cuda_emulation.has_compiler(), reason="no g++ to compile the emulation"
)


@pytest.fixture(scope="session")
def emulation():
    return ctypes.CDLL(str(built_once("emulation", cuda_emulation.build)))


class EmulatedContract(CorrelationContract):
    @pytest.fixture(autouse=True)
    def _emulation(self, emulation):
        self.library = emulation

    def run(self, a, b, **options):
        if a.shape != b.shape:
            raise InputError("the arrays of a launch have the shape of the plan")
        name = np.dtype(self.dtype).name
        what = Correlation(a.shape, map_type=name, out_type=name, **options)
        return cuda_emulation.correlate(self.library, what, a, b)


class TestFloat32(EmulatedContract):
    pass


class TestFloat16(EmulatedContract):
    # Sums are those of float32; the last step rounds to 11 bits, the definition's too.
    dtype, rtol = np.float16, 2**-10


class TestInt8(Int8CorrelationContract):
    @pytest.fixture(autouse=True)
    def _emulation(self, emulation):
        self.library = emulation

    def run(self, a, b, *, scales, **options):
        what = Correlation(a.shape, map_type="int8", scales=scales, **options)
        return cuda_emulation.correlate(self.library, what, a, b)


class TestInt8InPacksOfFour(TestInt8):
    def run(self, a, b, *, scales, **options):
        what = Correlation(a.shape, map_type="int8", scales=scales, packed=True, **options)
        return cuda_emulation.correlate(self.library, what, packs_of_four(a), packs_of_four(b))


def test_int8_results_are_rounded_to_even_and_saturated(emulation):
    a, b = Int8CorrelationContract.maps((1, 12, 9, 20))
    scales, out_scale = (0.02, 0.05), 0.0625
    what = Correlation(
        a.shape, radius=1, map_type="int8", out_type="int8", scales=scales, out_scale=out_scale
    )
    found = cuda_emulation.correlate(emulation, what, a, b)
    exact = local_correlation(a * np.float64(scales[0]), b * np.float64(scales[1]), radius=1)
    steps = np.rint(exact / out_scale)
    assert (np.abs(steps) > 128).any()
    # A value half way between two steps may fall to either side by the rounding of float32.
    near_tie = np.abs(np.abs(exact / out_scale) % 1 - 0.5) < 1e-5
    expected = np.clip(steps, -128, 127)
    np.testing.assert_array_equal(found[~near_tie], expected[~near_tie])


def test_int8_maps_with_a_float16_result(emulation):
    a, b = Int8CorrelationContract.maps((1, 8, 5, 12))
    what = Correlation(a.shape, radius=2, map_type="int8", out_type="float16", scales=(0.1, 0.1))
    found = cuda_emulation.correlate(emulation, what, a, b)
    expected = local_correlation(a * 0.1, b * 0.1, radius=2)
    np.testing.assert_allclose(found, expected.astype(np.float16), rtol=2**-10)


@pytest.mark.parametrize("radius", [5, 6, 9])
def test_radii_above_four_are_done_in_slices(emulation, radius):
    a, b = normal_maps((1, 5, 23, 31))
    what = Correlation(a.shape, radius=radius, normalize=True)
    found = cuda_emulation.correlate(emulation, what, a, b)
    expected = local_correlation(a, b, radius=radius, normalize=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=4e-6)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_launch_gives_the_same_numbers(emulation, data):
    """Block sizes depend on the map and the device; the result does not."""
    groups = data.draw(st.integers(1, 3))
    shape = (
        data.draw(st.integers(1, 2)),
        groups * data.draw(st.integers(1, 9)),
        data.draw(st.integers(1, 20)),
        data.draw(st.integers(1, 80)),
    )
    options = {
        "radius": data.draw(st.integers(0, 5)),
        "dilation": data.draw(st.integers(1, 4)),
        "groups": groups,
        "normalize": data.draw(st.booleans()),
    }
    a, b = normal_maps(shape)
    what = Correlation(shape, **options)
    expected = local_correlation(a, b, **options)
    for multiprocessors in (1, 1000):
        found = cuda_emulation.correlate(emulation, what, a, b, multiprocessors=multiprocessors)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=4e-6)


@pytest.mark.parametrize("map_type", ["float32", "float16", "int8"])
@pytest.mark.parametrize("radius", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("multiprocessors", [1, 8, 132])
@pytest.mark.parametrize("normalize", [False, True])
def test_python_and_cpp_plan_the_same_launch(
    emulation, map_type, radius, multiprocessors, normalize
):
    for shape, dilation, groups in (((1, 64, 64, 64), 1, 1), ((2, 30, 37, 53), 2, 3)):
        what = Correlation(
            shape, radius=radius, dilation=dilation, groups=groups, normalize=normalize,
            map_type=map_type, out_type=map_type,
        )  # fmt: skip
        plan = plan_launch(what, multiprocessors=multiprocessors, pointers=(0, 0, 0))
        params = ctypes.create_string_buffer(plan.params, len(plan.params))
        launch = cuda_emulation.EmulatedLaunch()
        emulation.cclseg_plan(
            cuda_emulation.TYPES[map_type], params, multiprocessors, ctypes.byref(launch)
        )
        assert params.raw == plan.params
        fields = [getattr(launch, name) for name, _ in launch._fields_]
        assert fields == [plan.radius, *plan.threads, plan.grid.x, plan.shared_bytes]
        assert launch.shared_bytes <= 48 * 1024  # what every device grants without being asked


def test_no_byte_is_read_or_written_out_of_bounds(tmp_path):
    """Shared and global memory under AddressSanitizer, arithmetic under UBSan."""
    assert cuda_emulation.run_sanitized("correlation", tmp_path) == "36 runs\n"


@pytest.fixture
def nvrtc():
    try:
        return Nvrtc()
    except MissingDependencyError as error:
        pytest.skip(f"{error} (group test-trt)")


class TestNvrtc:
    @pytest.mark.parametrize("map_type", ["float32", "float16", "int8"])
    @pytest.mark.parametrize(
        "capability", [(7, 2), (8, 7), (9, 0)], ids=["xavier", "orin", "hopper"]
    )
    def test_compiles_the_one_kernel_that_is_asked_for(self, nvrtc, map_type, capability):
        cubin = compile_kernel(nvrtc, map_type, 3, capability=capability)
        assert cubin.startswith(b"\x7fELF")
        plan = plan_launch(
            Correlation((1, 8, 9, 9), radius=3, map_type=map_type, out_type=map_type),
            multiprocessors=8,
            pointers=(0, 0, 0),
        )
        assert set(re.findall(rb"cclseg_correlation_\w+_r\d", cubin)) == {plan.kernel.encode()}

    def test_says_what_is_wrong_with_a_source(self, nvrtc):
        with pytest.raises(CudaError, match='identifier "unknown" is undefined'):
            nvrtc.compile("int value = unknown;", capability=(8, 7))

    def test_refuses_devices_that_it_does_not_know(self, nvrtc):
        with pytest.raises(CudaError, match="gpu-architecture=sm_11"):
            nvrtc.compile("", capability=(1, 1))

    def test_a_missing_library_is_named(self, tmp_path):
        with pytest.raises(MissingDependencyError, match=r"nothing\.so"):
            Nvrtc(tmp_path / "nothing.so")


def test_without_a_device_the_kernels_say_so():
    if (driver := read_cuda()) and driver.devices:
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(CudaError, match="libcuda"):
        CudaCorrelation()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shape": (1, 4, 3)}, "expected \\(N, C, H, W\\)"),
        ({"shape": (1, 4, 0, 3)}, "none of them 0"),
        ({"out_type": "float16"}, "expected a result of the maps' type"),
        ({"packed": True}, "packs for int8 alone"),
    ],
)
def test_problems_that_no_kernel_computes_are_refused(options, reason):
    with pytest.raises(InputError, match=reason):
        Correlation(**{"shape": (1, 4, 3, 5), "radius": 1} | options)


def test_maps_that_need_too_many_blocks_are_refused():
    what = Correlation((60000, 64, 4096, 4096), radius=4)
    with pytest.raises(InputError, match="too large for one launch"):
        plan_launch(what, multiprocessors=132, pointers=(0, 0, 0))
