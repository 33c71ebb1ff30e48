"""Sets of buffers in which the calls of an engine overlap on an NVIDIA device.

Each set has memory on both sides, a stream, and execution contexts of its own. While the device
computes in one set, it copies to and from another.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BackendError, CudaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..frame import FloatArray
    from ..gpu.device import Device, Graph, Stream

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class EngineAccess:
    """A deserialised engine, and what its buffers need to know of it.

    Attributes:
        name: Of the network, for messages.
        engine: An ICudaEngine.
        on_demand: The strategy that leaves a context's memory to us.
        device: Where it runs.
        input: Name of the images.
        output: Name of the logits.
        outputs: Names of all outputs.
        tile_shape: (C, H, W).
        logits_shape: (K, h, w) of a tile.
        fewest_tiles: The smallest batch that it was built for.
        most_tiles: The largest one.
        said: Returns the library's latest reasons.
        capturing: Whether its work may become CUDA graphs.
    """

    name: str
    engine: Any
    on_demand: Any
    device: Device
    input: str
    output: str
    outputs: tuple[str, ...]
    tile_shape: tuple[int, int, int]
    logits_shape: tuple[int, int, int]
    fewest_tiles: int
    most_tiles: int
    said: Callable[[], str]
    capturing: bool = True


class BufferSet:
    """Memory, a stream and contexts for one call at a time, on a device that is current.

    Attributes:
        stream: In which the set's work is done, in order.
        source: Address of (N, C, H, W) float32 images in device memory.
        target: Address of (N, K, h, w) float32 logits.
        call: What is on its way.
    """

    def __init__(self, access: EngineAccess) -> None:
        device = access.device
        self._access = access
        self.stream: Stream = device.stream()
        images_shape = (access.most_tiles, *access.tile_shape)
        self._images: FloatArray = device.pinned(images_shape, np.float32)
        self._images[:] = 0
        logits_shape = (access.most_tiles, *access.logits_shape)
        self._logits: FloatArray = device.pinned(logits_shape, np.float32)
        self._started, self._done = device.event(), device.event()
        self._scratch_bytes = int(access.engine.device_memory_size_v2)
        self._scratch = device.allocate(max(1, self._scratch_bytes))
        self.source = device.allocate(self._images.nbytes)
        self._addresses = {access.input: self.source}
        self._runs: dict[int, _Run] = {}
        # Reserves for the most tiles, outputs that nobody reads among them.
        largest = self._context(access.most_tiles)
        for name in access.outputs:
            elements = int(np.prod(tuple(largest.get_tensor_shape(name))))
            item_bytes = access.engine.get_tensor_bytes_per_component(name)
            self._addresses[name] = device.allocate(elements * item_bytes)
        self.target = self._addresses[access.output]
        self._runs[access.most_tiles] = _Run(access, self._bound(largest), self.stream)
        self.call: Call | None = None

    def start(self, images: FloatArray) -> Call:
        """Queues upload, inference and download of up to ``most_tiles`` tiles.

        The images may be reused at once. A call that is still on its way is waited for.
        """
        self.settle()
        count = len(images)
        # An engine may be built for no fewer: what the buffer holds from before goes along.
        batch = max(count, self._access.fewest_tiles)
        self._images[:count] = images
        self.stream.record(self._started)
        self.stream.upload(self.source, self._images[:batch])
        self.infer(batch)
        self.stream.download(self.target, self._logits[:batch])
        self.stream.record(self._done)
        self.call = Call(self, count)
        return self.call

    def infer(self, count: int) -> None:
        """Queues the inference of the tiles that lie at ``source``, without copies.

        Raises:
            BackendError: The library refused.
        """
        batch = max(count, self._access.fewest_tiles)
        if batch not in self._runs:
            context = self._bound(self._context(batch))
            self._runs[batch] = _Run(self._access, context, self.stream)
        self._runs[batch].queue()

    def settle(self) -> None:
        """Waits for the call that is on its way."""
        if self.call is not None:
            self.call.settle()

    def wait(self, count: int) -> tuple[FloatArray, float]:
        """Waits for the call; returns its logits, the caller's own, and the device's time in ms."""
        device = self._access.device
        with device.current():
            device.api.synchronize_event(self._done)
            elapsed_ms = device.api.elapsed_ms(self._started, self._done)
        return self._logits[:count].copy(), elapsed_ms

    def close(self) -> None:
        """Waits for what is on its way and drops the contexts."""
        self.settle()
        self._runs.clear()

    def _context(self, batch: int) -> Any:  # noqa: ANN401
        """Makes a context for one size of batch; those of a set share their memory.

        A CUDA graph holds on to the state of its context, so that no context may change its
        shape afterwards.
        """
        access = self._access
        context = access.engine.create_execution_context(access.on_demand)
        if context is None:
            raise BackendError(
                f"there is not enough device memory to run '{access.name}': {access.said()}; end "
                "other programs, or build it with a smaller --workspace or fewer tiles (--max)"
            )
        context.set_device_memory(self._scratch, self._scratch_bytes)
        shape = (batch, *access.tile_shape)
        if not context.set_input_shape(access.input, shape):
            raise BackendError(f"the engine of '{access.name}' does not take {shape}")
        return context

    def _bound(self, context: Any) -> Any:  # noqa: ANN401
        for name, address in self._addresses.items():
            context.set_tensor_address(name, address)
        return context


class Call:
    """Logits on their way.

    Attributes:
        device_ms: The device's time for it, once it is there.
    """

    def __init__(self, buffers: BufferSet, count: int) -> None:
        self._buffers, self._count = buffers, count
        self._logits: FloatArray | None = None
        self.device_ms: float | None = None

    def settle(self) -> FloatArray:
        """Waits, and frees the buffers for another call; returns (N, K, h, w) float32."""
        if self._logits is None:
            self._logits, self.device_ms = self._buffers.wait(self._count)
            self._buffers.call = None
        return self._logits


class _Run:
    """The inference of one size of batch: queued step by step at first, then as a CUDA graph."""

    def __init__(self, access: EngineAccess, context: Any, stream: Stream) -> None:  # noqa: ANN401
        self._access, self._context, self._stream = access, context, stream
        self._warm = False
        self._graphs: list[Graph] = []

    def queue(self) -> None:
        if self._warm and not self._graphs and self._access.capturing:
            self._capture()
        if self._graphs:
            self._graphs[0].queue(self._stream)
        else:
            self._enqueue()
            self._warm = True  # the first time, the library may still set things up

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise BackendError(
                f"TensorRT failed in the network '{self._access.name}': {self._access.said()}"
            )

    def _capture(self) -> None:
        try:
            with self._stream.capturing(self._graphs):
                self._enqueue()
        except (CudaError, BackendError) as error:
            self._access.capturing = False  # said once, for every batch and set
            _log.warning(
                "'%s' runs without CUDA graphs, step by step: %s", self._access.name, error
            )
