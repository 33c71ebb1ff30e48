"""What the NVIDIA driver says of itself and of its devices, asked through its C interface."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

_LIBRARY = "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_NAME_BYTES = 128
_KERNEL_MODULE = Path("proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """One NVIDIA graphics processor.

    Attributes:
        name: As the driver calls it ("Orin").
        capability: Compute capability as (major, minor).
        memory_bytes: Its memory; a Jetson's is that of the whole board.
    """

    name: str
    capability: tuple[int, int]
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class CudaDriver:
    """The NVIDIA driver of this machine.

    Attributes:
        release: Release of its kernel module ("540.4.0"), empty where it does not say.
        cuda: Newest CUDA that it runs, as (major, minor).
        devices: The devices that this process may use.
        status: What its initialisation returned; 0 is success, and there may be no device.
    """

    release: str
    cuda: tuple[int, int]
    devices: tuple[CudaDevice, ...]
    status: int = 0

    @property
    def version(self) -> str:
        """Release and CUDA version in one text."""
        cuda = f"CUDA {self.cuda[0]}.{self.cuda[1]}"
        return f"{self.release} ({cuda})" if self.release else cuda


def read_cuda(root: Path = Path("/")) -> CudaDriver | None:
    """Asks the driver; None where there is none.

    Args:
        root: Where ``proc`` stands.
    """
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    count, release = ctypes.c_int(), ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    driver.cuDriverGetVersion(ctypes.byref(release))
    devices = () if status else tuple(_device(driver, index) for index in range(count.value))
    cuda = release.value // 1000, release.value % 1000 // 10
    return CudaDriver(kernel_module_release(root), cuda, devices, status)


def _device(driver: ctypes.CDLL, index: int) -> CudaDevice:
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    memory = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor = (
        _attribute(driver, number, device) for number in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)
    )
    return CudaDevice(name.value.decode(errors="replace"), (major, minor), memory.value)


def _attribute(driver: ctypes.CDLL, number: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value


def kernel_module_release(root: Path = Path("/")) -> str:
    """Returns the release of NVIDIA's kernel module, empty where there is none."""
    # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  ..."
    try:
        text = (root / _KERNEL_MODULE).read_text(errors="replace")
    except OSError:
        return ""
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d[\d.]*)", text)
    return found.group(1) if found else ""
