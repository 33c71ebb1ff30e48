"""What a GPU does to a frame before and after the network; numpy's functions are the definition.

Plans are pure: the tests run them on a CPU. :class:`ImageKernels` queues them on a device.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

import numpy as np

from .api import Dim3
from .nvrtc import Nvrtc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .device import Device

# The structs of native/cuda/image_kernels.cu.
_NORMALISE = struct.Struct("=4Q3q6i")
_BLEND = struct.Struct("=5Q9i4x")
_CLASSES = struct.Struct("=2Q6i")
_BAND = np.dtype([("mean", np.float32), ("std", np.float32), ("place", np.int32)])

_PIXELS = 4  # of a thread, side by side
_THREADS = Dim3(32, 8)

ResultType = Literal["uint8", "uint16", "float32"]
_RESULT_KERNELS: dict[ResultType, str] = {
    "uint8": "cclseg_class_ids_u8",
    "uint16": "cclseg_class_ids_u16",
    "float32": "cclseg_confidence",
}


@dataclass(frozen=True, slots=True)
class ImageLaunch:
    """One kernel launch; see :class:`~cclseg.gpu.device.Launch`."""

    kernel: str
    params: bytes
    grid: Dim3
    threads: Dim3 = _THREADS
    shared_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DeviceImage:
    """A (H, W, C) uint8 image in device memory.

    Attributes:
        address: Of the first value.
        shape: (H, W, C).
        strides: Bytes from row to row, pixel to pixel, band to band.
    """

    address: int
    shape: tuple[int, int, int]
    strides: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class TileTables:
    """Addresses of what the kernels know of a frame's tiles; see :class:`~cclseg.tiling.TilePlan`.

    Attributes:
        corners: (tiles, 2) int32: top and left of each tile in pixels.
        row_weights: (rows of tiles, h) float32.
        column_weights: (columns of tiles, w) float32.
        tiles_across: Number of columns of tiles.
        stride: Pixels per logit along each axis.
    """

    corners: int
    row_weights: int
    column_weights: int
    tiles_across: int
    stride: int


def band_table(
    mean: Sequence[float], std: Sequence[float], places: Sequence[int]
) -> NDArray[np.void]:
    """Returns, for each band of a network, its mean, deviation and place in an image."""
    return np.array(list(zip(mean, std, places, strict=True)), _BAND)


def plan_normalise(
    image: DeviceImage,
    tiles: int,
    tiles_shape: tuple[int, int, int, int],
    *,
    corners: int,
    bands: int,
    half: bool = False,
) -> ImageLaunch:
    """Plans to write tiles of an image as a network takes them.

    What lies beyond the image mirrors what lies inside, as in
    :meth:`~cclseg.preprocess.Normaliser.normalise`.

    Args:
        image: The image.
        tiles: Address of the result.
        tiles_shape: (N, C, h, w) of the result.
        corners: Address of the corner of the first of these tiles.
        bands: Address of a :func:`band_table`.
        half: The result is float16 instead of float32.
    """
    count, channels, height, width = tiles_shape
    params = _NORMALISE.pack(
        *(image.address, tiles, corners, bands, *image.strides, *image.shape[:2]),
        *(height, width, channels, half),
    )
    return ImageLaunch("cclseg_normalise", params, _grid(height, width, count))


def plan_blend(
    canvas: int,
    canvas_shape: tuple[int, int, int],
    logits: int,
    logits_hw: tuple[int, int],
    *,
    tables: TileTables,
    first: int,
    count: int,
) -> ImageLaunch:
    """Plans to add the weighted logits of tiles to a frame's, as :class:`~cclseg.tiling.Blender`.

    Args:
        canvas: Address of (K, h, w) float32; the frame's first tiles find it as it is, and begin
            with zero.
        canvas_shape: Its shape.
        logits: Address of (count, K, *logits_hw) float32.
        logits_hw: Size of a tile in logits.
        tables: Of the frame's tiles.
        first: Number of the first of these tiles in the frame.
        count: How many they are.
    """
    classes, height, width = canvas_shape
    params = _BLEND.pack(
        *(canvas, logits, tables.corners, tables.row_weights, tables.column_weights),
        *(height, width, classes, *logits_hw, first, count, tables.tiles_across, tables.stride),
    )
    return ImageLaunch("cclseg_blend", params, _grid(height, width, classes))


def plan_result(
    canvas: int,
    canvas_shape: tuple[int, int, int],
    result: int,
    size_hw: tuple[int, int],
    *,
    stride: int,
    dtype: ResultType,
) -> ImageLaunch:
    """Plans the class of every pixel (uint8, uint16), or the confidence in it (float32).

    They are those of :func:`~cclseg.postprocess.enlarged` logits: the first class wins a tie.

    Args:
        canvas: Address of (K, h, w) float32 logits.
        canvas_shape: Its shape.
        result: Address of the result.
        size_hw: (H, W) of the result, at most (h * stride, w * stride).
        stride: Pixels per logit along each axis.
        dtype: Type of the result.
    """
    classes, height, width = canvas_shape
    params = _CLASSES.pack(canvas, result, height, width, classes, *size_hw, stride)
    return ImageLaunch(_RESULT_KERNELS[dtype], params, _grid(*size_hw, 1))


def image_source() -> str:
    """Returns the kernels' source."""
    return files("cclseg").joinpath("native/cuda/image_kernels.cu").read_text("utf-8")


class ImageKernels:
    """The kernels, compiled for a device, or taken from the cache, and loaded.

    Args:
        device: Where they run; current.

    Raises:
        MissingDependencyError: NVRTC is not installed.
        CudaError: It does not know the device.
    """

    def __init__(self, device: Device) -> None:
        cubin = Nvrtc().compile_once(image_source(), capability=device.capability)
        self._module = device.module(cubin)

    def queue(self, plan: ImageLaunch, *, stream: int) -> None:
        """Queues a plan; does not wait."""
        self._module.queue(plan, stream=stream)


def _grid(rows: int, columns: int, depth: int) -> Dim3:
    return Dim3(-(-columns // (_PIXELS * _THREADS.x)), -(-rows // _THREADS.y), depth)
