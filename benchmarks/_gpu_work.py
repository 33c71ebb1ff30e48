"""Arrays and kernels on a GPU, as the checks and the timings of gpu_pipeline.py need them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from _stand_in import STRIDE, Queue, StandInNetwork, emulated_network, kernels_on, network_on

from cclseg.device_frames import DeviceFrames
from cclseg.gpu.image_kernels import (
    DeviceImage,
    ImageKernels,
    ImageLaunch,
    ResultType,
    TileTables,
    band_table,
    plan_blend,
    plan_normalise,
    plan_result,
)
from cclseg.preprocess import channel_places
from cclseg.spec import ModelSpec

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from cclseg.gpu.device import Device
    from cclseg.tiling import TilePlan

CLASSES = 5
TILES_PER_CALL = 8


def spec_for(tile_hw: tuple[int, int], *, overlap: float = 0.25) -> ModelSpec:
    """Returns a network of three bands whose classes are their block means."""
    return ModelSpec(
        name="stand-in", class_names=("red", "green", "blue"), input_hw=tile_hw,
        bands=("red", "green", "blue"), mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375), output_stride=STRIDE, overlap=overlap,
        palette=((255, 0, 0), (0, 255, 0), (0, 0, 255)),
    )  # fmt: skip


@dataclass
class Work:
    """A plan with the bytes that it has to read and write at least."""

    name: str
    plan: ImageLaunch
    floor_bytes: int


class OnDevice:
    """Puts arrays on the device, runs plans there and fetches what they wrote."""

    def __init__(self, device: Device, emulated: ctypes.CDLL | None, *, repeats: int) -> None:
        self.device, self.kernels = device, ImageKernels(device)
        self.stream = device.stream()
        self.rng = np.random.default_rng(0)
        self.own = None if emulated else kernels_on(device)
        self.network: Queue
        self.network = (
            emulated_network(emulated) if self.own is None else network_on(self.own, repeats)
        )
        self.placed: list[int] = []

    def place(self, array: NDArray[Any]) -> int:
        """Returns the address of a copy on the device."""
        address = self.reserve(array.nbytes)
        self.stream.upload(address, np.ascontiguousarray(array))
        return address

    def reserve(self, size_bytes: int) -> int:
        """Returns the address of memory that lives until :meth:`clear`."""
        self.placed.append(self.device.allocate(max(1, size_bytes)))
        return self.placed[-1]

    def clear(self) -> None:
        """Frees what was placed."""
        for address in self.placed:
            self.device.free(address)
        self.placed.clear()

    def run(
        self, plan: ImageLaunch, address: int, shape: tuple[int, ...], dtype: DTypeLike
    ) -> NDArray[Any]:
        """Runs a plan and returns what it wrote at an address."""
        self.kernels.queue(plan, stream=self.stream.handle)
        out = np.empty(shape, dtype)
        self.stream.download(address, out)
        self.stream.synchronize()
        return out

    def normalising(
        self,
        shape: tuple[int, ...],
        spec: ModelSpec,
        corners: NDArray[np.int32],
        image: int,
        *,
        half: bool = False,
    ) -> Work:
        height, width, bands = shape
        table = band_table(spec.mean, spec.std, channel_places(spec, "bgr"))
        addresses = {"corners": self.place(corners), "bands": self.place(table)}
        tiles_shape = (len(corners), bands, *spec.input_hw)
        tile_bytes = int(np.prod(tiles_shape)) * (2 if half else 4)
        tiles = self.reserve(tile_bytes)
        seen = DeviceImage(image, (height, width, bands), (width * bands, bands, 1))
        plan = plan_normalise(seen, tiles, tiles_shape, half=half, **addresses)
        read_bytes = min(height * width, len(corners) * int(np.prod(spec.input_hw))) * bands
        return Work("normalise", plan, tile_bytes + read_bytes)

    def blending(self, plan: TilePlan, canvas: int, logits: int, count: int) -> Work:
        tables = TileTables(
            corners=self.place(np.array(plan.corners, np.int32)),
            row_weights=self.place(np.stack(plan.row_weights)),
            column_weights=self.place(np.stack(plan.column_weights)),
            tiles_across=len(plan.lefts),
            stride=STRIDE,
        )
        tile = (plan.tile_hw[0] // STRIDE, plan.tile_hw[1] // STRIDE)
        launch = plan_blend(
            canvas, (CLASSES, *plan.canvas_hw), logits, tile, tables=tables, first=0, count=count
        )
        floor = 4 * CLASSES * (count * int(np.prod(tile)) + int(np.prod(plan.canvas_hw)))
        return Work("blend", launch, floor)

    def resulting(self, plan: TilePlan, canvas: int, dtype: ResultType) -> Work:
        canvas_shape = (CLASSES, *plan.canvas_hw)
        out_bytes = int(np.prod(plan.frame_hw)) * np.dtype(dtype).itemsize
        target = self.reserve(out_bytes)
        launch = plan_result(
            canvas, canvas_shape, target, plan.frame_hw, stride=STRIDE, dtype=dtype
        )
        return Work(f"result {dtype}", launch, 4 * int(np.prod(canvas_shape)) + out_bytes)

    def pipeline(self, spec: ModelSpec) -> DeviceFrames:
        network = StandInNetwork(self.device, spec, tiles=TILES_PER_CALL, queue=self.network)
        return DeviceFrames(network, spec)
