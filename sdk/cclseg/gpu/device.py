"""One GPU: the context that is used, and the memory, streams and kernels made in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..closing import Closing
from ..errors import CudaError, InputError
from .api import CAPABILITY_MAJOR, CAPABILITY_MINOR, MULTIPROCESSOR_COUNT, open_api

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from .api import Context, CudaApi, Dim3


class Device(Closing):
    """A GPU, in the context that is current in this thread, or else in its primary one.

    A context of the caller's (pycuda's, torch's, CuPy's) is used and never replaced by a second
    one; it must outlive the device. Memory, streams, events, graphs and modules that the device
    made are freed when it is closed. Any thread may use them, inside :meth:`current`; two threads
    not at the same time.

    Args:
        index: Number of the GPU whose primary context is taken where none is current.
        api: Who speaks to the driver, None for :func:`~cclseg.gpu.api.open_api`'s choice.

    Raises:
        CudaError: There is no driver or no such GPU.

    Example:
        >>> with Device() as device, device.current():  # doctest: +SKIP
        ...     stream, address = device.stream(), device.allocate(4 * 1024)
        ...     stream.upload(address, np.ones(1024, np.float32))
        ...     stream.synchronize()
    """

    def __init__(self, index: int = 0, *, api: CudaApi | None = None) -> None:
        self.api = api or open_api()
        self._undo = contextlib.ExitStack()
        self._freeing: dict[int, contextlib.ExitStack] = {}
        self.is_closed = False
        self.context: Context = self.api.current_context()
        self.is_adopted = self.context is not None
        if not self.is_adopted:
            self.context = self.api.retain_primary(index)
            self._undo.callback(self.api.release_primary, index, self.context)
        with self.current():
            self.index = self.api.ordinal()
            self.capability = (
                self.api.attribute(CAPABILITY_MAJOR),
                self.api.attribute(CAPABILITY_MINOR),
            )
            self.multiprocessors = self.api.attribute(MULTIPROCESSOR_COUNT)

    @classmethod
    def of_caller(cls) -> Device:
        """Returns the device of the context that is current in this thread.

        Raises:
            CudaError: None is.
        """
        api = open_api()
        if api.current_context() is None:
            raise CudaError(
                "no CUDA context is current in this thread; make one with the library that owns "
                "the arrays (pycuda.autoinit, torch.cuda.init(), ...)"
            )
        return cls(api=api)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the context that of this thread, within the block; blocks may be nested."""
        with self.api.entered(self.context):
            yield

    @contextmanager
    def opened(self) -> Iterator[None]:
        """As :meth:`current`, for what may be asked after the device was closed.

        Raises:
            CudaError: It was.
        """
        self.check_open()
        with self.current():
            yield

    def check_open(self) -> None:
        """Raises CudaError once the device is closed."""
        if self.is_closed:
            raise CudaError(
                "what was computed on the GPU is gone, because its segmenter is closed; read "
                "masks, confidence and logits before that"
            )

    def allocate(self, size_bytes: int) -> int:
        """Returns the address of new memory, which is freed with the device."""
        address = self.api.allocate(size_bytes)
        self.on_close(address, self.api.free, address)
        return address

    def free(self, address: int) -> None:
        """Frees memory of :meth:`allocate`; waits until the device is done with everything."""
        self._freeing.pop(address).close()

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Returns a new host array from and to which copies run beside the host's work.

        It is freed with the device: copy out of it what shall live longer.
        """
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self.api.allocate_pinned(size_bytes)
        self.on_close(address, self.api.free_pinned, address)
        return host_array(address, shape, dtype)

    def stream(self) -> Stream:
        """Returns a new stream."""
        handle = self.api.create_stream()
        self.on_close(handle, self.api.destroy_stream, handle)
        return Stream(self, handle)

    def event(self) -> int:
        """Returns a new event."""
        event = self.api.create_event()
        self.on_close(event, self.api.destroy_event, event)
        return event

    def module(self, cubin: bytes) -> Module:
        """Loads compiled kernels."""
        handle = self.api.load_module(cubin)
        self.on_close(handle, self.api.unload_module, handle)
        return Module(self, handle)

    def on_close(self, handle: int, free: Callable[..., None], *arguments: int) -> None:
        """Has a function called when the device is closed, or by :meth:`free` of this handle."""
        undo = contextlib.ExitStack()
        undo.callback(free, *arguments)
        self._freeing[handle] = undo

    def close(self) -> None:
        """Frees what was made here, the last first. May be called twice."""
        self.is_closed = True
        freeing, self._freeing = self._freeing, {}
        if freeing:
            with self.current(), contextlib.ExitStack() as undo:
                for one in freeing.values():
                    undo.callback(one.close)
        self._undo.close()


class Launch(Protocol):
    """One planned kernel launch."""

    @property
    def kernel(self) -> str:
        """Name of an ``extern "C"`` kernel."""

    @property
    def params(self) -> bytes:
        """The kernel's first argument, a struct."""

    @property
    def grid(self) -> Dim3:
        """Number of blocks."""

    @property
    def threads(self) -> Dim3:
        """Threads of a block."""

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block."""


class Module:
    """Compiled kernels of a device."""

    def __init__(self, device: Device, handle: int) -> None:
        self._device, self._handle = device, handle
        self._functions: dict[str, int] = {}

    def queue(self, plan: Launch, *addresses: int, stream: int) -> None:
        """Queues one launch; does not wait for it.

        Args:
            plan: What to launch.
            addresses: The kernel's arguments after the first.
            stream: A CUstream as an int, of whatever library; 0 is the default stream.

        Raises:
            CudaError: There is no such kernel, or the driver refused the launch.
        """
        if plan.kernel not in self._functions:
            function = self._device.api.find_function(self._handle, plan.kernel)
            self._functions[plan.kernel] = function
        self._device.api.launch(
            self._functions[plan.kernel],
            (plan.params, *(address.to_bytes(8, "little") for address in addresses)),
            grid=plan.grid,
            threads=plan.threads,
            shared_bytes=plan.shared_bytes,
            stream=stream,
        )


class Stream:
    """Copies and launches that a device does in order.

    Attributes:
        handle: The CUstream as an int.
    """

    def __init__(self, device: Device, handle: int) -> None:
        self.device, self.handle = device, handle
        self._api = device.api

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Queues a copy of a C-contiguous array to the device.

        A pinned array must stay as it is until the copy is done; any other may be reused at once.
        """
        self._api.copy_to_device(address, _address(array), array.nbytes, self.handle)

    def download(self, address: int, array: NDArray[Any]) -> None:
        """Queues a copy into a C-contiguous array, which holds it after a wait."""
        self._api.copy_to_host(_address(array), address, array.nbytes, self.handle)

    def record(self, event: int) -> None:
        """Lets an event stand for the moment when everything now in the stream is done."""
        self._api.record_event(event, self.handle)

    def wait(self, event: int) -> None:
        """Lets the stream wait for an event; the host goes on."""
        self._api.wait_event(self.handle, event)

    def follow(self, other: int, event: int) -> None:
        """Lets the stream wait for all that is in another one, of whatever library; no one waits.

        Args:
            other: A CUstream as an int.
            event: An event of ours that marks the place.
        """
        self._api.record_event(event, other)
        self._api.wait_event(self.handle, event)

    def precede(self, other: int, event: int) -> None:
        """Lets another stream, of whatever library, wait for all that is in this one."""
        self._api.record_event(event, self.handle)
        self._api.wait_event(other, event)

    @contextmanager
    def capturing(self, graphs: list[Graph]) -> Iterator[None]:
        """Writes down what the block queues, and appends it to ``graphs`` as one graph.

        Raises:
            CudaError: Something in the block cannot be part of a graph.
        """
        self._api.begin_capture(self.handle)
        try:
            yield
        except BaseException:
            # The capture has to end in any case; what failed in the block is what the caller hears.
            with contextlib.suppress(CudaError):
                self._api.destroy_graph(self._api.end_capture(self.handle))
            raise
        graph = self._api.end_capture(self.handle)
        self.device.on_close(graph, self._api.destroy_graph, graph)
        graphs.append(Graph(self._api, graph))

    def synchronize(self) -> None:
        """Waits until everything in the stream is done."""
        self._api.synchronize_stream(self.handle)


class Graph:
    """Work that was written down once and is launched as one."""

    def __init__(self, api: CudaApi, handle: int) -> None:
        self._api, self._handle = api, handle

    def queue(self, stream: Stream) -> None:
        """Queues all of it; does not wait."""
        self._api.launch_graph(self._handle, stream.handle)


def host_array(address: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Returns the array that lies at an address of host memory, which it does not own."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    described = {"data": (address, False), "shape": (size,), "typestr": "|u1", "version": 3}
    holder = type("_Memory", (), {"__array_interface__": described})()
    return np.asarray(holder).view(dtype).reshape(shape)


def _address(array: NDArray[Any]) -> int:
    if not array.flags.c_contiguous:
        raise InputError(
            f"got an array with strides of {array.strides} bytes; the driver copies bytes as they "
            "lie: give it np.ascontiguousarray(...)"
        )
    return array.ctypes.data
