"""The CUDA driver by its C interface; needs nothing but the driver."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import CudaError

if TYPE_CHECKING:
    from .api import Context, Dim3

_LIBRARY = "libcuda.so.1"
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on


class CtypesApi:
    """Implements :class:`~cclseg.gpu.api.CudaApi`; see there."""

    name = "ctypes"

    def __init__(self) -> None:
        try:
            self._driver = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise CudaError(
                f"a GPU needs the NVIDIA driver, and {_LIBRARY} is not there; use a CPU backend "
                "or install the driver"
            ) from error
        self._call("cuInit", 0)

    def current_context(self) -> Context | None:
        return self._made("cuCtxGetCurrent") or None

    def retain_primary(self, index: int) -> Context:
        return self._made("cuDevicePrimaryCtxRetain", self._device(index))

    def release_primary(self, index: int, context: Context) -> None:
        self._call("cuDevicePrimaryCtxRelease_v2", self._device(index))

    @contextmanager
    def entered(self, context: Context) -> Iterator[None]:
        self._call("cuCtxPushCurrent_v2", _word(context))
        try:
            yield
        finally:
            self._made("cuCtxPopCurrent_v2")

    def attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, self.ordinal())
        return value.value

    def ordinal(self) -> int:
        device = ctypes.c_int()
        self._call("cuCtxGetDevice", ctypes.byref(device))
        return device.value

    def allocate(self, size_bytes: int) -> int:
        return self._made("cuMemAlloc_v2", _word(size_bytes))

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", _word(address))

    def allocate_pinned(self, size_bytes: int) -> int:
        return self._made("cuMemHostAlloc", _word(size_bytes), 0)

    def free_pinned(self, address: int) -> None:
        self._call("cuMemFreeHost", _word(address))

    def create_stream(self) -> int:
        return self._made("cuStreamCreate", NON_BLOCKING)

    def destroy_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy_v2", _word(stream))

    def synchronize_stream(self, stream: int) -> None:
        self._call("cuStreamSynchronize", _word(stream))

    def create_event(self) -> int:
        return self._made("cuEventCreate", 0)

    def destroy_event(self, event: int) -> None:
        self._call("cuEventDestroy_v2", _word(event))

    def record_event(self, event: int, stream: int) -> None:
        self._call("cuEventRecord", _word(event), _word(stream))

    def wait_event(self, stream: int, event: int) -> None:
        self._call("cuStreamWaitEvent", _word(stream), _word(event), 0)

    def synchronize_event(self, event: int) -> None:
        self._call("cuEventSynchronize", _word(event))

    def elapsed_ms(self, start: int, end: int) -> float:
        elapsed = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(elapsed), _word(start), _word(end))
        return elapsed.value

    def copy_to_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        words = map(_word, (target, source, size_bytes, stream))
        self._call("cuMemcpyHtoDAsync_v2", *words)

    def copy_to_host(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        words = map(_word, (target, source, size_bytes, stream))
        self._call("cuMemcpyDtoHAsync_v2", *words)

    def load_module(self, cubin: bytes) -> int:
        return self._made("cuModuleLoadData", cubin)

    def unload_module(self, module: int) -> None:
        self._call("cuModuleUnload", _word(module))

    def find_function(self, module: int, kernel: str) -> int:
        return self._made("cuModuleGetFunction", _word(module), kernel.encode())

    def launch(
        self,
        function: int,
        arguments: tuple[bytes, ...],
        *,
        grid: Dim3,
        threads: Dim3,
        shared_bytes: int,
        stream: int,
    ) -> None:
        values = [ctypes.create_string_buffer(value, len(value)) for value in arguments]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        extents = (ctypes.c_uint(extent) for extent in (*grid, *threads, shared_bytes))
        self._call("cuLaunchKernel", _word(function), *extents, _word(stream), pointers, None)

    def begin_capture(self, stream: int) -> None:
        self._call("cuStreamBeginCapture_v2", _word(stream), _CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        graph = ctypes.c_void_p()
        self._call("cuStreamEndCapture", _word(stream), ctypes.byref(graph))
        try:
            return self._made("cuGraphInstantiateWithFlags", graph, ctypes.c_uint64(0))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch_graph(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", _word(graph), _word(stream))

    def destroy_graph(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", _word(graph))

    def _device(self, index: int) -> ctypes.c_int:
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), index)
        return device

    def _made(self, function: str, *arguments: object) -> int:
        """Calls a function whose first argument takes a handle or address; returns that."""
        handle = ctypes.c_void_p()
        self._call(function, ctypes.byref(handle), *arguments)
        return handle.value or 0

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._driver, function)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(status, ctypes.byref(text))
            raise failed(function, text.value.decode() if text.value else f"status {status}")


def failed(function: str, reason: str) -> CudaError:
    """Says which function of the driver failed, and why."""
    return CudaError(f"{function} failed: {reason}; is a CUDA context current in this thread?")


def _word(value: int) -> ctypes.c_void_p:
    """An argument of the machine's width: a handle, an address or a size."""
    return ctypes.c_void_p(value)
