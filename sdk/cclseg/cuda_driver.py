"""CUDA source compiled by NVRTC and launched by the driver, both by their C interfaces.

No CUDA library for Python is needed, and any of them may be in use: kernels are loaded into, and
launched in, the context that is current in the calling thread, be it that of cuda-python, pycuda,
torch or CuPy.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from .closing import Closing
from .errors import CudaError, MissingDependencyError

_NVRTC_NAMES = ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12")
_NVRTC_PACKAGES = ("nvidia.cuda_nvrtc", "nvidia.cu13")

_NONE: Mapping[str, str] = MappingProxyType({})

_MULTIPROCESSOR_COUNT, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 16, 75, 76  # CUdevice_attribute


class Dim3(NamedTuple):
    """Extent of a block or grid."""

    x: int
    y: int
    z: int


class Nvrtc:
    """NVIDIA's run-time compiler; needs no GPU.

    Args:
        library: The file of libnvrtc; None looks in CUDA_HOME, the nvidia-cuda-nvrtc packages and
            the system.

    Raises:
        MissingDependencyError: There is no such library.
    """

    def __init__(self, library: Path | None = None) -> None:
        candidates = [str(library)] if library else list(_nvrtc_candidates())
        for candidate in candidates:
            try:
                self._library = ctypes.CDLL(candidate)
                break
            except OSError:
                continue
        else:
            raise MissingDependencyError(
                "compiling CUDA kernels needs NVRTC, which was not found in "
                f"{', '.join(candidates)}; install the CUDA toolkit and set CUDA_HOME, or run: "
                "pip install nvidia-cuda-nvrtc-cu12"
            )
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor number of the CUDA release."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def compile(
        self, source: str, *, capability: tuple[int, int], definitions: Mapping[str, str] = _NONE
    ) -> bytes:
        """Compiles one file that includes nothing.

        Args:
            source: CUDA C++.
            capability: Compute capability of the device, as (8, 7).
            definitions: Macros and their values.

        Returns:
            A cubin for :class:`Module`.

        Raises:
            CudaError: The compiler refused the source or the device; its log is in the message.
        """
        program = ctypes.c_void_p()
        self._call(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            source.encode(),
            b"source.cu",
            0,
            None,
            None,
        )
        try:
            options = [f"--gpu-architecture=sm_{capability[0]}{capability[1]}", "--std=c++17"]
            options += [f"--define-macro={name}={value}" for name, value in definitions.items()]
            array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            status = self._library.nvrtcCompileProgram(program, len(options), array)
            if status:
                log = self._read("nvrtcGetProgramLog", "nvrtcGetProgramLogSize", program)
                reason = self._library.nvrtcGetErrorString(status).decode()
                raise CudaError(
                    f"NVRTC {'.'.join(map(str, self.version))} refused the source for "
                    f"{options[0]}: {reason}\n{log.decode(errors='replace')}"
                )
            return self._read("nvrtcGetCUBIN", "nvrtcGetCUBINSize", program)
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _read(self, getter: str, sizer: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(sizer, program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(getter, program, buffer)
        return buffer.raw

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            reason = self._library.nvrtcGetErrorString(status).decode()
            raise CudaError(f"{function} failed: {reason}")


class Module(Closing):
    """Compiled kernels, loaded into the CUDA context that is current in this thread.

    Args:
        cubin: What :meth:`Nvrtc.compile` returned for this device.

    Raises:
        CudaError: No context is current, or the cubin is for another device.
    """

    def __init__(self, cubin: bytes) -> None:
        self._handle: ctypes.c_void_p | None = None
        self._functions: dict[str, ctypes.c_void_p] = {}
        handle = ctypes.c_void_p()
        call_driver("cuModuleLoadData", ctypes.byref(handle), cubin)
        self._handle = handle

    def launch(
        self,
        kernel: str,
        arguments: tuple[bytes | int, ...],
        *,
        blocks: int,
        threads: Dim3,
        shared_bytes: int = 0,
        stream: int = 0,
    ) -> None:
        """Queues one launch; does not wait for it.

        Args:
            kernel: Name of an ``extern "C"`` kernel.
            arguments: Its arguments: a pointer as an int, a struct as its bytes.
            blocks: Number of blocks.
            threads: Threads of a block.
            shared_bytes: Dynamic shared memory of a block.
            stream: A CUstream as an int; 0 is the default stream.

        Raises:
            CudaError: There is no such kernel, or the driver refused the launch.
        """
        if self._handle is None:
            raise CudaError(f"the module of {kernel} is closed; load it again")
        if kernel not in self._functions:
            function = ctypes.c_void_p()
            call_driver(
                "cuModuleGetFunction", ctypes.byref(function), self._handle, kernel.encode()
            )
            self._functions[kernel] = function
        values = [
            ctypes.create_string_buffer(argument, len(argument))
            if isinstance(argument, bytes)
            else ctypes.c_void_p(argument)
            for argument in arguments
        ]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        call_driver(
            "cuLaunchKernel",
            self._functions[kernel],
            *(ctypes.c_uint(extent) for extent in (blocks, 1, 1, *threads, shared_bytes)),
            ctypes.c_void_p(stream),
            pointers,
            None,
        )

    def close(self) -> None:
        """Unloads the kernels. May be called twice."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            call_driver("cuModuleUnload", handle)


def device_capabilities() -> list[tuple[int, int]]:
    """Returns the compute capability of each CUDA device, none where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [
        (_device_attribute(device, _CAPABILITY_MAJOR), _device_attribute(device, _CAPABILITY_MINOR))
        for device in map(ctypes.c_int, range(count.value))
    ]


def current_capability() -> tuple[int, int]:
    """Returns the compute capability of the current context's device."""
    return _attribute(_CAPABILITY_MAJOR), _attribute(_CAPABILITY_MINOR)


def current_multiprocessors() -> int:
    """Returns the number of multiprocessors of the current context's device."""
    return _attribute(_MULTIPROCESSOR_COUNT)


def _attribute(number: int) -> int:
    device = ctypes.c_int()
    call_driver("cuCtxGetDevice", ctypes.byref(device))
    return _device_attribute(device, number)


def _device_attribute(device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int()
    call_driver("cuDeviceGetAttribute", ctypes.byref(value), number, device)
    return value.value


def call_driver(function: str, *arguments: object) -> None:
    """Calls the driver; the one place that turns its statuses into errors.

    Args:
        function: Name of a function of the driver's C interface.
        arguments: Its arguments as ctypes takes them.

    Raises:
        CudaError: There is no driver, or it returned a failure status.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")  # the loader keeps it: this is a look-up
    except OSError as error:
        raise CudaError(
            f"{function} needs the NVIDIA driver, and libcuda.so.1 is not there; "
            "use a CPU backend or install the driver"
        ) from error
    status = getattr(driver, function)(*arguments)
    if status:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        reason = text.value.decode() if text.value else f"status {status}"
        raise CudaError(f"{function} failed: {reason}; is a CUDA context current in this thread?")


def _nvrtc_candidates() -> Iterator[str]:
    if home := os.environ.get("CUDA_HOME"):
        yield from (str(Path(home) / "lib64" / name) for name in _NVRTC_NAMES)
    for package in _NVRTC_PACKAGES:
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            yield from map(str, sorted(Path(folder, "lib").glob("libnvrtc.so.*")))
    yield from _NVRTC_NAMES
    if found := ctypes.util.find_library("nvrtc"):
        yield found
