"""The local correlation on a GPU without TensorRT: kernels compiled by NVRTC on first use."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, Protocol

import numpy as np

from .closing import Closing
from .correlation import check_window
from .errors import CudaError, InputError
from .gpu.api import Dim3
from .gpu.device import Device, Module
from .gpu.nvrtc import Nvrtc

MapType = Literal["float32", "float16", "int8"]

_KERNEL_TYPES = {"float32": "f32", "float16": "f16", "int8": "s8"}
_KERNEL_MAPS = {
    "float32": "FloatingMap<float>, float",
    "float16": "FloatingMap<Half>, Half",
    "int8": "Int8Map, signed char",
}
_OUT_TYPES = {"float32": 0, "float16": 1, "int8": 2}
_PARAMS = struct.Struct("=12i2f")  # struct CorrelationParams of local_correlation.cu

# The shapes of native/cuda/local_correlation.cu and the rules of native/cuda/launch.h.
_TILE_COLUMNS, _THREADS_X = 64, 8
_ROWS = (16, 8, 4, 4, 3)
_CHUNK_BYTES, _ROW_A, _ROW_B = 16, 20, 21
_STAGE_BYTES, _MAX_STEPS = 24 * 1024, 8
_MAX_BLOCKS = 2**31 - 1


class CudaArray(Protocol):
    """Memory on a GPU as torch, CuPy, numba and pycuda describe it."""

    @property
    def __cuda_array_interface__(self) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True)
class Correlation:
    """What is computed of two maps.

    Attributes:
        shape: (N, C, H, W) of both maps.
        radius: Window radius R >= 0, in steps.
        dilation: Step between places of the window, in pixels.
        groups: Number of channel groups; divides C.
        normalize: Cosine similarity instead of the mean of products.
        map_type: Type of both maps.
        out_type: Type of the result; that of the maps, and any for int8 maps.
        packed: int8 maps come in packs of four channels: (N, ceil(C / 4), H, W, 4).
        scales: Value of one step of ``a`` and of ``b``; 1 for floating maps.
        out_scale: Value of one step of an int8 result.

    Raises:
        InputError: An option does not fit the maps.
    """

    shape: tuple[int, int, int, int]
    radius: int
    dilation: int = 1
    groups: int = 1
    normalize: bool = False
    map_type: MapType = "float32"
    out_type: MapType = "float32"
    packed: bool = False
    scales: tuple[float, float] = (1.0, 1.0)
    out_scale: float = 1.0

    def __post_init__(self) -> None:
        if len(self.shape) != 4 or min(self.shape) < 1:
            raise InputError(f"got maps {self.shape}; expected (N, C, H, W), none of them 0")
        check_window(self.shape[1], radius=self.radius, dilation=self.dilation, groups=self.groups)
        if self.map_type != "int8" and (self.out_type != self.map_type or self.packed):
            raise InputError(
                f"got {self.map_type} maps for a result of {self.out_type}, packed: {self.packed}; "
                "expected a result of the maps' type, and packs for int8 alone"
            )

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """(N, groups * (2R + 1)^2, H, W)."""
        n, _, h, w = self.shape
        return n, self.groups * (2 * self.radius + 1) ** 2, h, w


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch.

    Attributes:
        kernel: Name of the kernel.
        radius: The window radius that the kernel is made for.
        params: The kernel's first argument.
        grid: Number of blocks, all along x.
        threads: Threads of a block.
        shared_bytes: Dynamic shared memory of a block.
    """

    kernel: str
    radius: int
    params: bytes
    grid: Dim3
    threads: Dim3
    shared_bytes: int


def compile_kernel(
    nvrtc: Nvrtc, map_type: MapType, radius: int, *, capability: tuple[int, int]
) -> bytes:
    """Compiles one kernel, where the cache has it not, and returns its cubin; needs no GPU.

    Args:
        nvrtc: The compiler.
        map_type: Type of the maps.
        radius: The window radius that the kernel is made for, 0 to 4; 4 does larger ones too.
        capability: Compute capability of the device, as (8, 7).

    Raises:
        CudaError: The compiler does not know the device.
    """
    source = files("cclseg").joinpath("native/cuda/local_correlation.cu").read_text("utf-8")
    kernel = f"CCLSEG_KERNEL({_KERNEL_TYPES[map_type]}, {_KERNEL_MAPS[map_type]}, {radius})"
    return nvrtc.compile_once(source, capability=capability, definitions={"CCLSEG_ENTRIES": kernel})


def plan_launch(what: Correlation, *, multiprocessors: int, pointers: tuple[int, ...]) -> Launch:
    """Chooses the kernel, the blocks and the shared memory.

    Blocks are as large as the kernel allows, because a block's threads share what it has staged,
    and smaller where the map is too small to keep all multiprocessors busy.

    Args:
        what: The maps and the window.
        multiprocessors: How many the device has.
        pointers: Addresses of a, b and the result; vectors are used where all are aligned.

    Raises:
        InputError: The maps are too large for one launch.
    """
    n, channels, h, w = what.shape
    radius = min(what.radius, 4)
    lags, kernel_lags = 2 * what.radius + 1, 2 * radius + 1
    columns, lattice_rows = _divide_up(w, what.dilation), _divide_up(h, what.dilation)
    areas = n * what.groups * what.dilation**2
    areas *= _divide_up(columns, _TILE_COLUMNS) * _divide_up(lags, kernel_lags)

    def count_blocks(rows: int, high: int) -> int:
        return areas * _divide_up(lattice_rows, rows) * _divide_up(lags, high)

    rows, high = _ROWS[radius], kernel_lags
    while count_blocks(rows, high) < 2 * multiprocessors and rows * high > 8:
        if high > 2:
            high = (high + 1) // 2
        else:
            rows = (rows + 1) // 2
    if count_blocks(rows, high) > _MAX_BLOCKS:
        raise InputError(f"maps {what.shape} are too large for one launch; cut them into tiles")
    step_bytes = _CHUNK_BYTES * (rows * _ROW_A + (rows + high - 1) * _ROW_B)
    square_bytes = step_bytes if what.normalize else 0
    steps = _MAX_STEPS
    while steps > 1 and steps * step_bytes + square_bytes > _STAGE_BYTES:
        steps //= 2
    depth = channels // what.groups
    steps = min(steps, _divide_up(depth, 4) if what.map_type == "int8" else depth)
    aligned = w % 4 == 0 and not any(pointer % 16 for pointer in pointers)
    params = _PARAMS.pack(
        *(n, channels, h, w, what.radius, what.dilation, what.groups, what.normalize),
        *(steps, aligned, what.packed, _OUT_TYPES[what.out_type]),
        *(what.scales[0] * what.scales[1], what.out_scale),
    )
    return Launch(
        f"cclseg_correlation_{_KERNEL_TYPES[what.map_type]}_r{radius}",
        radius,
        params,
        Dim3(count_blocks(rows, high)),
        Dim3(_THREADS_X, rows, high),
        steps * step_bytes + square_bytes,
    )


class CudaCorrelation(Closing):
    """The kernels, loaded into the CUDA context that is current in this thread.

    The context may be that of cuda-python, pycuda, torch or CuPy. An instance belongs to that
    context. A kernel's first launch on a machine compiles it, which takes some seconds.

    Raises:
        CudaError: No context is current.
        MissingDependencyError: NVRTC is not installed.

    Example::

        correlation = CudaCorrelation()
        what = Correlation(a.shape, radius=4)              # a, b: pycuda.gpuarray.GPUArray
        out = pycuda.gpuarray.empty(what.out_shape, a.dtype)
        correlation(what, a, b, out, stream=stream.handle)

    With cuda-python, which knows addresses alone::

        pointers = (int(a), int(b), int(out))              # cuda.bindings.driver.CUdeviceptr
        correlation.launch(what, pointers, stream=int(stream))
    """

    def __init__(self) -> None:
        self._device = Device.of_caller()
        self._nvrtc = Nvrtc()
        self._modules: dict[str, Module] = {}

    def __call__(
        self, what: Correlation, a: CudaArray, b: CudaArray, out: CudaArray, *, stream: int = 0
    ) -> None:
        """Queues the correlation of ``a`` and ``b`` into ``out``; does not wait for it.

        Args:
            what: The maps and the window.
            a: (N, C, H, W), dense, of ``what.map_type``.
            b: As ``a``.
            out: ``what.out_shape``, dense, of ``what.out_type``; overwritten.
            stream: A CUstream as an int.

        Raises:
            InputError: An array is not what ``what`` says.
            CudaError: The driver refused the launch.
        """
        pointers = (
            _pointer(a, _stored_shape(what), what.map_type),
            _pointer(b, _stored_shape(what), what.map_type),
            _pointer(out, what.out_shape, what.out_type),
        )
        self.launch(what, pointers, stream=stream)

    def launch(self, what: Correlation, pointers: tuple[int, int, int], *, stream: int = 0) -> None:
        """Queues the correlation of the maps at the first two addresses into the third.

        Raises:
            InputError: The maps are too large for one launch.
            CudaError: The driver refused the launch.
        """
        plan = plan_launch(what, multiprocessors=self._device.multiprocessors, pointers=pointers)
        with self._device.current():
            if plan.kernel not in self._modules:
                cubin = compile_kernel(
                    self._nvrtc, what.map_type, plan.radius, capability=self._device.capability
                )
                self._modules[plan.kernel] = self._device.module(cubin)
            self._modules[plan.kernel].queue(plan, *pointers, stream=stream)

    def close(self) -> None:
        """Unloads the kernels. May be called twice."""
        self._modules.clear()
        self._device.close()


def _stored_shape(what: Correlation) -> tuple[int, ...]:
    n, channels, h, w = what.shape
    return (n, _divide_up(channels, 4), h, w, 4) if what.packed else what.shape


def _pointer(array: CudaArray, shape: tuple[int, ...], dtype: MapType) -> int:
    described = array.__cuda_array_interface__
    found = described["shape"], np.dtype(str(described["typestr"]))
    if found != (shape, np.dtype(dtype)):
        raise InputError(f"got {found[1]} {found[0]}; expected {dtype} {shape}")
    itemsize = np.dtype(dtype).itemsize
    dense = tuple(itemsize * int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    if described.get("strides") not in (None, dense):
        raise InputError(
            f"got strides of {described['strides']} bytes; expected the dense {dense}: copy the "
            "array to contiguous memory"
        )
    data = described["data"]
    if not isinstance(data, tuple):
        raise CudaError(f"got the data {data!r}; expected an address and whether it is read-only")
    return int(data[0])


def _divide_up(a: int, b: int) -> int:
    return (a + b - 1) // b
