"""Device memory and a stream, through the driver alone.

They live in the device's primary context, which is the one that torch, CuPy and the CUDA runtime
use, so pointers may be passed between them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .cuda_driver import call_driver

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream of other libraries


class CudaStream:
    """A stream of a device with memory of its own.

    Copies and kernels of the stream run in order; :meth:`synchronize` waits for them. Every call
    that needs the context, our own ones included, stands inside :meth:`current`.

    Args:
        index: Number of the device.

    Raises:
        CudaError: There is no driver or no such device.
    """

    def __init__(self, index: int = 0) -> None:
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        call_driver("cuInit", 0)
        call_driver("cuDeviceGet", ctypes.byref(device), index)
        call_driver("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._device, self._context = device, context
        self._buffers: list[int] = []
        self._handle: ctypes.c_void_p | None = None
        with self.current():
            call_driver("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        self._handle = stream

    @property
    def handle(self) -> int:
        """The CUstream as an int."""
        return (self._handle.value or 0) if self._handle is not None else 0

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the device's context that of this thread, within the block."""
        call_driver("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            call_driver("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def allocate(self, size_bytes: int) -> int:
        """Returns the address of new device memory, which is freed with the stream."""
        address = ctypes.c_uint64()
        call_driver("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size_bytes))
        self._buffers.append(address.value)
        return address.value

    def upload(self, address: int, array: NDArray[np.generic]) -> None:
        """Copies a C-contiguous array to the device; the array may be reused at once."""
        call_driver(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_uint64(address),
            _pointer(array),
            ctypes.c_size_t(array.nbytes),
            self._handle,
        )

    def download(self, address: int, array: NDArray[np.generic]) -> None:
        """Copies from the device into a C-contiguous array, which is filled after a wait."""
        call_driver(
            "cuMemcpyDtoHAsync_v2",
            _pointer(array),
            ctypes.c_uint64(address),
            ctypes.c_size_t(array.nbytes),
            self._handle,
        )

    def synchronize(self) -> None:
        """Waits until everything in the stream is done."""
        call_driver("cuStreamSynchronize", self._handle)

    def close(self) -> None:
        """Frees memory and stream. May be called twice."""
        if self._handle is None:
            return
        stream, self._handle = self._handle, None
        with self.current():
            for address in self._buffers:
                call_driver("cuMemFree_v2", ctypes.c_uint64(address))
            call_driver("cuStreamDestroy_v2", stream)
        self._buffers.clear()
        call_driver("cuDevicePrimaryCtxRelease_v2", self._device)


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    assert array.flags.c_contiguous, "the driver copies bytes as they lie"
    return ctypes.c_void_p(array.ctypes.data)
