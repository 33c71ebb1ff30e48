"""The kernels in a program of their own: under sanitizers, and for 64-bit ARM in an emulator."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from correlation_contract import normal_maps
from native_libraries import HERE, arm_program, sanitized_program

from cclseg.correlation import local_correlation

DRIVER = HERE / "kernel_driver.cpp"

CASES = [  # shape, window
    ((2, 3, 1, 1), {"radius": 1}),
    ((1, 10, 7, 13), {"radius": 4, "normalize": True}),
    ((2, 6, 9, 21), {"radius": 2, "dilation": 3, "groups": 2}),
    ((1, 32, 37, 53), {"radius": 3, "groups": 4, "normalize": True}),
    ((1, 4, 3, 150), {"radius": 5, "dilation": 2}),
]


@pytest.fixture(scope="module")
def sanitized():
    return sanitized_program(DRIVER)


@pytest.fixture(scope="module")
def emulated():
    return arm_program(DRIVER)


def kernels_of(command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def correlate(command, kernel, a, b, *, scales, radius, dilation=1, groups=1, normalize=False):
    header = np.array([a.dtype == np.int8, *a.shape, radius, dilation, groups, normalize], np.int64)
    parts = (header, np.array(scales, np.float32), a, b)
    content = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    done = subprocess.run([*command, kernel], input=content, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    lags = groups * (2 * radius + 1) ** 2
    return np.frombuffer(done.stdout, np.float32).reshape(a.shape[0], lags, *a.shape[2:])


def check_all_kernels(command, shape, window):
    floats = normal_maps(shape)
    integers = np.random.default_rng(0).integers(-128, 128, (2, *shape), np.int8)
    for kernel in kernels_of(command):
        found = correlate(command, kernel, *floats, scales=(1, 1), **window)
        expected = local_correlation(*floats, **window)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=4e-6, err_msg=kernel)
        found = correlate(command, kernel, *integers, scales=(0.5, 0.25), **window)
        expected = local_correlation(integers[0] * 0.5, integers[1] * 0.25, **window)
        np.testing.assert_allclose(found, expected, rtol=4e-6, atol=1e-6, err_msg=kernel)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "window"), CASES)
def test_sanitizers_find_nothing_and_the_numbers_are_right(sanitized, shape, window):
    check_all_kernels(sanitized, shape, window)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "window"), CASES)
def test_arm_kernels_compute_the_same(emulated, shape, window):
    check_all_kernels(emulated, shape, window)


@pytest.mark.slow
def test_the_emulated_processor_has_both_arm_kernels(emulated):
    assert kernels_of(emulated) == ["neon_dot", "neon", "portable"]


@pytest.mark.slow
def test_an_older_arm_processor_goes_without_the_dot_product(emulated):
    older = [emulated[0], "-cpu", "cortex-a72", emulated[-1]]
    assert kernels_of(older) == ["neon", "portable"]
    a, b = normal_maps((1, 8, 5, 6))
    found = correlate(older, "neon", a, b, scales=(1, 1), radius=1)
    np.testing.assert_allclose(found, local_correlation(a, b, radius=1), rtol=1e-5, atol=4e-6)
