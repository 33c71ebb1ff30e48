"""The protocol by which this package speaks to the CUDA driver, and the choice of who speaks.

Three libraries implement it: ``ctypes`` calls the driver's C interface and needs nothing
installed, ``cuda-python`` and ``pycuda`` are for programs that use those. Handles and addresses
are plain integers, the same for all of them, so what one library made another can use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias

from ..errors import InputError
from ..suggest import did_you_mean

Context: TypeAlias = Any
"""A CUDA context as the library knows it."""

LIBRARY_VARIABLE = "CCLSEG_CUDA"

# CUdevice_attribute
MULTIPROCESSOR_COUNT, CAPABILITY_MAJOR, CAPABILITY_MINOR = 16, 75, 76


class Dim3(NamedTuple):
    """Extent of a block or grid."""

    x: int
    y: int = 1
    z: int = 1


class CudaApi(Protocol):
    """The functions of the driver that are needed, each as small as the driver's own.

    All but the first three stand inside :meth:`entered`. None waits for the device unless its name
    says so. A failure status is a :class:`~cclseg.errors.CudaError`.

    Attributes:
        name: Which library speaks.
    """

    name: str

    def current_context(self) -> Context | None:
        """Returns the context that is current in this thread, None without one."""

    def retain_primary(self, index: int) -> Context:
        """Returns the context that torch, CuPy and the CUDA runtime use, held until released."""

    def release_primary(self, index: int, context: Context) -> None:
        """Gives back a context of :meth:`retain_primary`."""

    def entered(self, context: Context) -> AbstractContextManager[None]:
        """Makes a context current in this thread, within a with block."""

    def attribute(self, number: int) -> int:
        """Returns a CUdevice_attribute of the current context's device."""

    def ordinal(self) -> int:
        """Returns the number of the current context's device."""

    def allocate(self, size_bytes: int) -> int:
        """Returns the address of new device memory."""

    def free(self, address: int) -> None:
        """Frees device memory; waits until the device is done with everything."""

    def allocate_pinned(self, size_bytes: int) -> int:
        """Returns the address of new host memory from which copies run beside the host's work."""

    def free_pinned(self, address: int) -> None:
        """Frees such host memory."""

    def create_stream(self) -> int:
        """Returns a stream that does not wait for the default stream of other libraries."""

    def destroy_stream(self, stream: int) -> None:
        """Gives a stream back; what it still has to do is done."""

    def synchronize_stream(self, stream: int) -> None:
        """Waits until everything in a stream is done."""

    def create_event(self) -> int:
        """Returns an event, which stands for a moment in a stream."""

    def destroy_event(self, event: int) -> None:
        """Gives an event back."""

    def record_event(self, event: int, stream: int) -> None:
        """Lets an event stand for the moment when everything now in a stream is done."""

    def wait_event(self, stream: int, event: int) -> None:
        """Lets a stream wait for an event; the host goes on."""

    def synchronize_event(self, event: int) -> None:
        """Waits for an event."""

    def elapsed_ms(self, start: int, end: int) -> float:
        """Returns the device's time between two events that have both come."""

    def copy_to_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Queues a copy from host memory."""

    def copy_to_host(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Queues a copy to host memory."""

    def load_module(self, cubin: bytes) -> int:
        """Loads compiled kernels."""

    def unload_module(self, module: int) -> None:
        """Unloads them."""

    def find_function(self, module: int, kernel: str) -> int:
        """Returns the handle of an ``extern "C"`` kernel."""

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
        """Queues one launch; each argument is the bytes of its value."""

    def begin_capture(self, stream: int) -> None:
        """Has what this thread queues in a stream written down from now on, not done."""

    def end_capture(self, stream: int) -> int:
        """Returns what was written down as a graph that can be launched."""

    def launch_graph(self, graph: int, stream: int) -> None:
        """Queues all of a graph."""

    def destroy_graph(self, graph: int) -> None:
        """Gives a graph back."""


def _ctypes() -> CudaApi:
    from .ctypes_api import CtypesApi

    return CtypesApi()


def _cuda_python() -> CudaApi:
    from .cuda_python_api import CudaPythonApi

    return CudaPythonApi()


def _pycuda() -> CudaApi:
    from .pycuda_api import PyCudaApi

    return PyCudaApi()


_LIBRARIES: dict[str, Callable[[], CudaApi]] = {
    "ctypes": _ctypes,
    "cuda-python": _cuda_python,
    "pycuda": _pycuda,
}


def open_api(name: str | None = None) -> CudaApi:
    """Returns the library that speaks to the driver.

    Args:
        name: "ctypes", "cuda-python" or "pycuda"; None for what ``$CCLSEG_CUDA`` names, else
            pycuda where the caller has a context of it current, else ctypes.

    Raises:
        InputError: There is no such library.
        MissingDependencyError: It is not installed.
        CudaError: There is no driver.
    """
    name = name or os.environ.get(LIBRARY_VARIABLE) or _in_use()
    if name not in _LIBRARIES:
        raise InputError(f"no CUDA library '{name}'; {did_you_mean(name, _LIBRARIES)}")
    return _LIBRARIES[name]()


def _in_use() -> str:
    pycuda = sys.modules.get("pycuda.driver")
    if pycuda is not None and pycuda.Context.get_current() is not None:
        return "pycuda"
    return "ctypes"
