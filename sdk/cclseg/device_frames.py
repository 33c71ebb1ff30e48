"""Frames that stay on a GPU from their pixels to their classes.

One stream does it all, in order: upload (where the frame is not there already), tiles, network,
blending, classes, download. Two sets of buffers let the copies of one frame run beside the
computation of another. Nothing is allocated for a frame of a size seen lately, and the host waits
once for each frame, when its result is asked for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .device_results import SIZES_KEPT, Loan, ResultMemory, Results, Sizes
from .errors import BackendError
from .gpu.arrays import is_on_gpu, on_host, view_on_device
from .gpu.image_kernels import (
    DeviceImage,
    ImageKernels,
    ImageLaunch,
    TileTables,
    band_table,
    plan_blend,
    plan_normalise,
)
from .preprocess import channel_places, default_channels
from .tiled import check_frame
from .tiling import TilePlan, plan_tiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .frame import ChannelOrder, Image, ImageLike
    from .gpu.device import Device
    from .gpu.network import DeviceNetwork, DeviceSet
    from .result import Segmentation
    from .spec import ModelSpec


class DeviceFrames:
    """Segments frames by a network on a GPU; not to be shared between threads without a lock.

    Args:
        network: Closed by its owner, and these frames with it.
        spec: What the network says of itself, with the overlap that is wanted.

    Raises:
        MissingDependencyError: NVRTC, which compiles the kernels, is not installed.
        CudaError: The driver failed.
    """

    def __init__(self, network: DeviceNetwork, spec: ModelSpec) -> None:
        device = network.device
        with device.current():
            kernels = ImageKernels(device)
            results = Results(device, kernels, spec)
            self._benches = [
                _Bench(each, network.tiles_per_call, device, kernels, results, spec)
                for each in network.sets
            ]
        self._device, self._turn = device, 0

    def submit(
        self, frame: ImageLike, *, channels: ChannelOrder | None = None
    ) -> Callable[[], Segmentation]:
        """Queues a frame; what is returned waits for its classes.

        As many frames are on their way as the network has sets of buffers; a further one waits
        for the first of them. A frame in device memory must stay as it is until then.

        Args:
            frame: (H, W, C) uint8 on the host or on the network's GPU, of whatever library.
            channels: Order of the frame's last axis, None for the network's usual one.

        Raises:
            InputError: The frame does not fit the network; says what to do.
            BackendError: The library or the driver failed.
        """
        if self._device.is_closed:
            raise BackendError("the network of these frames is closed; open it again")
        bench = self._benches[(self._turn + 1) % len(self._benches)]
        with self._device.current():
            collect = bench.start(frame, channels)
        self._turn += 1
        return collect


@dataclass(slots=True)
class _Layout:
    """What a bench keeps for frames of one size.

    Attributes:
        plan: The tiles.
        tables: What the kernels know of them.
        image: Address of the frame in device memory.
        host_image: Where the frame's bytes wait for the upload.
        host_mask: Where the mask arrives.
        owned: All addresses, on either side.
    """

    plan: TilePlan
    tables: TileTables
    image: int
    host_image: Image
    host_mask: NDArray[Any]
    owned: list[int]


class _Bench:
    """Where one frame at a time is worked on; the device is current throughout."""

    def __init__(
        self,
        buffers: DeviceSet,
        tiles_per_call: int,
        device: Device,
        kernels: ImageKernels,
        results: Results,
        spec: ModelSpec,
    ) -> None:
        self._buffers, self._tiles_per_call = buffers, tiles_per_call
        self._device, self._kernels, self._results = device, kernels, results
        self._spec, self._stream = spec, buffers.stream
        self._produced, self._started, self._done = (device.event() for _ in range(3))
        self._bands: dict[tuple[int, ...], int] = {}
        self._layouts: dict[tuple[int, int], _Layout] = {}
        self._on_its_way: _OnItsWay | None = None

    def start(self, frame: ImageLike, channels: ChannelOrder | None) -> Callable[[], Segmentation]:
        """Queues a frame; what is returned waits for its classes."""
        start_ns = time.perf_counter_ns()
        if self._on_its_way is not None:
            self._on_its_way.settle()
        self._buffers.settle()
        channels = channels or default_channels(self._spec)
        image, layout, owner = self._placed(frame, channels)
        bands = self._bands_at(channel_places(self._spec, channels))
        plan = layout.plan
        sizes = Sizes((self._spec.num_classes, *plan.canvas_hw), plan.frame_hw)
        loan = self._results.lend(sizes)
        try:
            self._queue_all(image, layout, loan.memory, bands=bands)
        except BackendError:
            self._stream.synchronize()  # the memory is about to be lent to others
            raise
        host_ms = (time.perf_counter_ns() - start_ns) / 1e6
        self._on_its_way = _OnItsWay(self, layout.host_mask, loan, owner, host_ms)
        return self._on_its_way.settle

    def _placed(
        self, frame: ImageLike, channels: ChannelOrder
    ) -> tuple[DeviceImage, _Layout, object]:
        """Returns where a frame lies in device memory, with what keeps it there."""
        if is_on_gpu(frame):
            view = view_on_device(frame, self._device, self._stream, self._produced)
            check_frame(view, self._spec, channels)
            height, width, bands = view.shape
            layout = self._laid_out((height, width))
            self._stream.record(self._started)
            strides = (view.strides[0], view.strides[1], view.strides[2])
            return DeviceImage(view.address, (height, width, bands), strides), layout, view.owner
        host = on_host(frame)
        check_frame(host, self._spec, channels)
        assert isinstance(host, np.ndarray)
        layout = self._laid_out((host.shape[0], host.shape[1]))
        layout.host_image[:] = host
        self._stream.record(self._started)
        self._stream.upload(layout.image, layout.host_image)
        shape = (*layout.plan.frame_hw, host.shape[2])
        strides = (shape[1] * shape[2], shape[2], 1)
        return DeviceImage(layout.image, shape, strides), layout, None

    def _queue_all(
        self, image: DeviceImage, layout: _Layout, memory: ResultMemory, *, bands: int
    ) -> None:
        tiles = len(layout.plan.corners)
        for first in range(0, tiles, self._tiles_per_call):
            count = min(self._tiles_per_call, tiles - first)
            self._queue_tiles(image, layout, memory, bands=bands, first=first, count=count)
        self._queue(self._results.plan(memory, memory.mask, self._results.mask_type))
        self._stream.download(memory.mask, layout.host_mask)
        self._stream.record(self._done)

    def _queue_tiles(
        self,
        image: DeviceImage,
        layout: _Layout,
        memory: ResultMemory,
        *,
        bands: int,
        first: int,
        count: int,
    ) -> None:
        spec, tables = self._spec, layout.tables
        self._queue(
            plan_normalise(
                image, self._buffers.source, (count, len(spec.bands), *spec.input_hw),
                corners=tables.corners + first * 8, bands=bands,
            )
        )  # fmt: skip
        self._buffers.infer(count)
        logits_hw = (spec.input_hw[0] // tables.stride, spec.input_hw[1] // tables.stride)
        self._queue(
            plan_blend(
                memory.canvas, memory.sizes.canvas, self._buffers.target, logits_hw,
                tables=tables, first=first, count=count,
            )
        )  # fmt: skip

    def _queue(self, plan: ImageLaunch) -> None:
        self._kernels.queue(plan, stream=self._stream.handle)

    def _bands_at(self, places: tuple[int, ...]) -> int:
        if places not in self._bands:
            table = band_table(self._spec.mean, self._spec.std, places)
            self._bands[places] = self._uploaded(table)
        return self._bands[places]

    def _laid_out(self, frame_hw: tuple[int, int]) -> _Layout:
        """Returns what is kept for frames of a size; that of a few sizes stays."""
        if frame_hw not in self._layouts:
            if len(self._layouts) == SIZES_KEPT:
                oldest = self._layouts.pop(next(iter(self._layouts)))
                for address in oldest.owned:
                    self._device.free(address)
            self._layouts[frame_hw] = self._new_layout(frame_hw)
        return self._layouts[frame_hw]

    def _new_layout(self, frame_hw: tuple[int, int]) -> _Layout:
        spec, device = self._spec, self._device
        plan = plan_tiles(frame_hw, spec.input_hw, overlap=spec.overlap, stride=spec.output_stride)
        tables = TileTables(
            corners=self._uploaded(np.array(plan.corners, np.int32)),
            row_weights=self._uploaded(np.stack(plan.row_weights)),
            column_weights=self._uploaded(np.stack(plan.column_weights)),
            tiles_across=len(plan.lefts),
            stride=plan.stride,
        )
        host_image = device.pinned((*frame_hw, len(spec.bands)), np.uint8)
        host_mask = device.pinned(frame_hw, self._results.mask_type)
        image = device.allocate(host_image.nbytes)
        owned = [tables.corners, tables.row_weights, tables.column_weights, image]
        owned += [host_image.ctypes.data, host_mask.ctypes.data]
        return _Layout(plan, tables, image, host_image, host_mask, owned)

    def _uploaded(self, array: NDArray[Any]) -> int:
        address = self._device.allocate(array.nbytes)
        self._stream.upload(address, array)
        return address

    def wait(self) -> float:
        """Waits for the frame; returns the device's time for it in ms."""
        self._on_its_way = None
        with self._device.opened():
            self._device.api.synchronize_event(self._done)
            return self._device.api.elapsed_ms(self._started, self._done)

    def finished(self, mask: NDArray[Any], loan: Loan, timing: dict[str, float]) -> Segmentation:
        """Returns the result of the frame that was waited for."""
        return self._results.segmentation(mask.copy(), loan, timing=timing)


class _OnItsWay:
    """A frame whose classes are being computed."""

    def __init__(
        self, bench: _Bench, mask: NDArray[Any], loan: Loan, owner: object, host_ms: float
    ) -> None:
        self._bench, self._mask, self._loan = bench, mask, loan
        self._owner, self._host_ms = owner, host_ms
        self._result: Segmentation | None = None

    def settle(self) -> Segmentation:
        """Waits, and leaves the bench to another frame."""
        if self._result is None:
            device_ms = self._bench.wait()
            timing = {"queue": self._host_ms, "device": device_ms}
            self._result = self._bench.finished(self._mask, self._loan, timing)
            self._owner = None
        return self._result
