"""The CUDA driver by pycuda, for programs that use it.

What lives in pycuda's context (memory, streams, and the context itself) is made and freed by
pycuda, so that it knows of it. What is queued takes handles of any library, which pycuda does not,
and graphs, which it has not: that goes to the driver as in
:class:`~cclseg.gpu.ctypes_api.CtypesApi`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CudaError, MissingDependencyError
from .ctypes_api import NON_BLOCKING, CtypesApi

if TYPE_CHECKING:
    from .api import Context

try:
    import pycuda.driver as pycuda
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "pycuda", extra="pycuda", purpose="speaking to the GPU by pycuda"
    ) from error


class PyCudaApi(CtypesApi):
    """Implements :class:`~cclseg.gpu.api.CudaApi`; see there."""

    name = "pycuda"

    def __init__(self) -> None:
        super().__init__()
        pycuda.init()
        self._owned: dict[int, Any] = {}

    def current_context(self) -> Context | None:
        return pycuda.Context.get_current()

    def retain_primary(self, index: int) -> Context:
        with _translated("cuDevicePrimaryCtxRetain"):
            return pycuda.Device(index).retain_primary_context()

    def release_primary(self, index: int, context: Context) -> None:
        handle = context.handle
        with _translated("cuDevicePrimaryCtxRelease"):
            context.push()
            context.detach()
        # pycuda (2026.1) leaves a primary context on the driver's stack, below what was current.
        above = super().current_context()
        self._made("cuCtxPopCurrent_v2")
        if above != handle:
            self._made("cuCtxPopCurrent_v2")
            self._call("cuCtxPushCurrent_v2", ctypes.c_void_p(above))

    @contextmanager
    def entered(self, context: Context) -> Iterator[None]:
        with _translated("cuCtxPushCurrent"):
            context.push()
        try:
            yield
        finally:
            pycuda.Context.pop()

    def allocate(self, size_bytes: int) -> int:
        with _translated("cuMemAlloc"):
            return self._keep(pycuda.mem_alloc(size_bytes))

    def free(self, address: int) -> None:
        with _translated("cuMemFree"):
            self._owned.pop(address).free()

    def allocate_pinned(self, size_bytes: int) -> int:
        with _translated("cuMemHostAlloc"):
            memory = pycuda.pagelocked_empty(size_bytes, np.uint8)
        self._owned[memory.ctypes.data] = memory
        return int(memory.ctypes.data)

    def free_pinned(self, address: int) -> None:
        self._owned.pop(address).base.free()

    def create_stream(self) -> int:
        with _translated("cuStreamCreate"):
            stream = pycuda.Stream(NON_BLOCKING)
        self._owned[stream.handle] = stream
        return int(stream.handle)

    def destroy_stream(self, stream: int) -> None:
        del self._owned[stream]

    def _keep(self, memory: Any) -> int:  # noqa: ANN401
        self._owned[int(memory)] = memory
        return int(memory)


@contextmanager
def _translated(function: str) -> Iterator[None]:
    try:
        yield
    except pycuda.Error as error:
        raise CudaError(f"{function} failed in pycuda: {error}") from error
