"""The CUDA driver by NVIDIA's Python library, cuda-python."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import CudaError, MissingDependencyError
from .ctypes_api import failed

if TYPE_CHECKING:
    from .api import Context, Dim3

try:
    from cuda.bindings import driver
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "cuda.bindings", extra="gpu", purpose="speaking to the GPU by cuda-python"
    ) from error


class CudaPythonApi:
    """Implements :class:`~cclseg.gpu.api.CudaApi`; see there."""

    name = "cuda-python"

    def __init__(self) -> None:
        try:
            _call("cuInit", 0)
        except RuntimeError as error:  # how the library says that libcuda is not there
            if isinstance(error, CudaError):
                raise
            raise CudaError(
                f"a GPU needs the NVIDIA driver: {error}; use a CPU backend or install the driver"
            ) from error

    def current_context(self) -> Context | None:
        return int(_call("cuCtxGetCurrent")) or None

    def retain_primary(self, index: int) -> Context:
        return int(_call("cuDevicePrimaryCtxRetain", _call("cuDeviceGet", index)))

    def release_primary(self, index: int, context: Context) -> None:
        _call("cuDevicePrimaryCtxRelease", _call("cuDeviceGet", index))

    @contextmanager
    def entered(self, context: Context) -> Iterator[None]:
        _call("cuCtxPushCurrent", context)
        try:
            yield
        finally:
            _call("cuCtxPopCurrent")

    def attribute(self, number: int) -> int:
        kind = driver.CUdevice_attribute(number)
        return int(_call("cuDeviceGetAttribute", kind, _call("cuCtxGetDevice")))

    def ordinal(self) -> int:
        return int(_call("cuCtxGetDevice"))

    def allocate(self, size_bytes: int) -> int:
        return int(_call("cuMemAlloc", size_bytes))

    def free(self, address: int) -> None:
        _call("cuMemFree", address)

    def allocate_pinned(self, size_bytes: int) -> int:
        return int(_call("cuMemHostAlloc", size_bytes, 0))

    def free_pinned(self, address: int) -> None:
        _call("cuMemFreeHost", address)

    def create_stream(self) -> int:
        return int(_call("cuStreamCreate", driver.CUstream_flags.CU_STREAM_NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        _call("cuStreamDestroy", stream)

    def synchronize_stream(self, stream: int) -> None:
        _call("cuStreamSynchronize", stream)

    def create_event(self) -> int:
        return int(_call("cuEventCreate", 0))

    def destroy_event(self, event: int) -> None:
        _call("cuEventDestroy", event)

    def record_event(self, event: int, stream: int) -> None:
        _call("cuEventRecord", event, stream)

    def wait_event(self, stream: int, event: int) -> None:
        _call("cuStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        _call("cuEventSynchronize", event)

    def elapsed_ms(self, start: int, end: int) -> float:
        return float(_call("cuEventElapsedTime", start, end))

    def copy_to_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        _call("cuMemcpyHtoDAsync", target, source, size_bytes, stream)

    def copy_to_host(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        _call("cuMemcpyDtoHAsync", target, source, size_bytes, stream)

    def load_module(self, cubin: bytes) -> int:
        return int(_call("cuModuleLoadData", cubin))

    def unload_module(self, module: int) -> None:
        _call("cuModuleUnload", module)

    def find_function(self, module: int, kernel: str) -> int:
        return int(_call("cuModuleGetFunction", module, kernel.encode()))

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
        address = ctypes.addressof(pointers)
        _call("cuLaunchKernel", function, *grid, *threads, shared_bytes, stream, address, 0)

    def begin_capture(self, stream: int) -> None:
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        graph = _call("cuStreamEndCapture", stream)
        try:
            return int(_call("cuGraphInstantiate", graph, 0))
        finally:
            _call("cuGraphDestroy", graph)

    def launch_graph(self, graph: int, stream: int) -> None:
        _call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        _call("cuGraphExecDestroy", graph)


def _call(function: str, *arguments: object) -> Any:  # noqa: ANN401 - the library's own types
    """Calls a function of the driver and returns its only result."""
    status, *results = getattr(driver, function)(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        _, text = driver.cuGetErrorString(status)
        raise failed(function, text.decode() if text else str(status))
    return results[0] if results else None
