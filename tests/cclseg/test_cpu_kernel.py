"""Each kernel of the compiled operator, called directly, against the definition."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

import numpy as np
import pytest
from correlation_contract import CorrelationContract, Int8CorrelationContract
from native_libraries import native_library

KERNELS = {
    "x86_64": ("avx512_vnni", "avx512", "avx2", "portable"),
    "aarch64": ("neon_dot", "neon", "portable"),
}.get(platform.machine(), ("portable",))


@cache
def library():
    loaded = ctypes.CDLL(str(native_library("onnxruntime")))
    loaded.cclseg_local_correlation.restype = ctypes.c_char_p
    loaded.cclseg_kernel_name.restype = ctypes.c_char_p
    return loaded


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def packed(array):
    """C-contiguous, but as badly aligned as it was."""
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def correlate(kernel, a, b, *, radius, dilation=1, groups=1, normalize=False, scales=None):
    if a.shape != b.shape:
        raise ValueError("the C function takes one shape for both maps")
    a, b = packed(a), packed(b)
    side = max(0, 2 * radius + 1)
    # A frame of not-a-number around the result shows writes outside of it.
    frame = np.full(a.shape[0] * groups * side**2 * a[0, 0].size + 32, np.nan, np.float32)
    out = frame[16:-16]
    sizes = (ctypes.c_int64 * 4)(*a.shape)
    window = (ctypes.c_int64 * 4)(radius, dilation, groups, normalize)
    factors = (ctypes.c_float * 2)(*scales) if scales else None
    reason = library().cclseg_local_correlation(
        kernel.encode(), pointer(a), pointer(b), sizes, window, factors, pointer(out)
    )
    if reason:
        raise ValueError(reason.decode())
    assert np.isnan(frame[:16]).all()
    assert np.isnan(frame[-16:]).all()
    return out.reshape(a.shape[0], groups * side**2, *a.shape[2:])


def skip_unless_supported(kernel):
    if not library().cclseg_kernel_is_supported(kernel.encode()):
        pytest.skip(f"this processor has no {kernel}")


@pytest.mark.parametrize("kernel", KERNELS, scope="class")
class TestFloatKernels(CorrelationContract):
    @pytest.fixture(autouse=True)
    def _choose(self, kernel):
        skip_unless_supported(kernel)
        self.kernel = kernel

    def run(self, a, b, **options):
        return correlate(self.kernel, a, b, **options)

    def test_wide_maps_are_cut_into_tiles(self):
        a, b = np.random.default_rng(0).normal(size=(2, 1, 12, 21, 300)).astype(np.float32)
        self.check(a, b, radius=3, dilation=2, groups=3, normalize=True)

    def test_windows_of_more_lags_than_registers(self):
        a, b = np.random.default_rng(0).normal(size=(2, 1, 4, 9, 40)).astype(np.float32)
        self.check(a, b, radius=11)


@pytest.mark.parametrize("kernel", KERNELS, scope="class")
class TestInt8Kernels(Int8CorrelationContract):
    @pytest.fixture(autouse=True)
    def _choose(self, kernel):
        skip_unless_supported(kernel)
        self.kernel = kernel

    def run(self, a, b, **options):
        return correlate(self.kernel, a, b, **options)


def test_the_last_kernel_works_everywhere():
    names = []
    while name := library().cclseg_kernel_name(len(names)):
        names.append(name.decode())
    assert names[-1] == "portable"
    assert names == list(KERNELS)
    assert library().cclseg_kernel_is_supported(b"portable")


def test_an_unknown_kernel_is_refused():
    a = np.zeros((1, 1, 2, 2), np.float32)
    with pytest.raises(ValueError, match="no such kernel"):
        correlate("avx1024", a, a, radius=1)


def test_maps_without_places_are_done_at_once():
    a = np.zeros((0, 4, 3, 3), np.float32)
    sizes = (ctypes.c_int64 * 4)(*a.shape)
    window = (ctypes.c_int64 * 4)(1, 1, 1, 0)
    reason = library().cclseg_local_correlation(b"portable", None, None, sizes, window, None, None)
    assert reason is None
