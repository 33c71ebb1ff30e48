"""What is read of the NVIDIA driver."""

from __future__ import annotations

import ctypes.util

import pytest

from cclseg.cuda_devices import CudaDriver, kernel_module_release, read_cuda

DESKTOP = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
)
JETSON = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n"
    "GCC version:  collect2: error\n"
)


@pytest.mark.parametrize(
    ("text", "release"), [(DESKTOP, "550.54.15"), (JETSON, "540.4.0"), ("something else", "")]
)
def test_the_release_is_that_of_the_kernel_module(tmp_path, text, release):
    folder = tmp_path / "proc" / "driver" / "nvidia"
    folder.mkdir(parents=True)
    (folder / "version").write_text(text)
    assert kernel_module_release(tmp_path) == release


def test_a_version_names_release_and_cuda():
    assert CudaDriver("540.4.0", (12, 6), ()).version == "540.4.0 (CUDA 12.6)"
    assert CudaDriver("", (12, 6), ()).version == "CUDA 12.6"


def test_a_machine_without_a_driver_has_none():
    if ctypes.util.find_library("cuda"):
        pytest.skip("this machine has an NVIDIA driver")
    assert read_cuda() is None


@pytest.mark.gpu
def test_the_devices_of_this_machine_are_named():
    driver = read_cuda()
    if driver is None or not driver.devices:
        pytest.skip("no NVIDIA device")
    assert all(device.name and device.memory_bytes > 1 << 28 for device in driver.devices)
    assert all(device.capability >= (5, 0) for device in driver.devices)
