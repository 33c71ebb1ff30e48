"""A network for a GPU without TensorRT: the means of 4 x 4 blocks, as often as is asked."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cclseg.gpu.api import Dim3
from cclseg.gpu.nvrtc import Nvrtc

if TYPE_CHECKING:
    from cclseg.gpu.device import Device, Module, Stream
    from cclseg.spec import ModelSpec

STRIDE = 4
_THREADS = Dim3(256)
_SOURCE = """
struct Params { const float* in; float* out; int planes, height, width, repeats; };

// Each repetition reads what the one before wrote, so that none is left out.
extern "C" __global__ void block_means(Params p) {
  const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  const int w = p.width / 4, h = p.height / 4;
  if (i >= (long long)p.planes * h * w) return;
  const int x = i % w * 4, y = i / w % h * 4;
  const float* plane = p.in + i / w / h * p.height * p.width;
  float mean = 0;
  for (int r = 0; r < p.repeats; ++r) {
    double sum = 0;
    for (int k = 0; k < 16; ++k)
      sum += ((volatile const float*)plane)[(y + k / 4) * p.width + x + k % 4];
    mean = sum / 16 + 0 * mean;
  }
  p.out[i] = mean;
}

extern "C" __global__ void copy(Params p) {
  const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i < p.planes * (long long)p.height * p.width / 4) ((float4*)p.out)[i] = ((float4*)p.in)[i];
}
"""
_PARAMS = struct.Struct("=2Q4i")


@dataclass(frozen=True)
class _Launch:
    kernel: str
    params: bytes
    grid: Dim3
    threads: Dim3 = _THREADS
    shared_bytes: int = 0


Queue = Callable[[int, int, tuple[int, int, int], int], None]
"""Queues the network: source, target, (planes, height, width), stream."""


def kernels_on(device: Device) -> Module:
    """Compiles and loads the network and a plain copy."""
    return device.module(Nvrtc().compile_once(_SOURCE, capability=device.capability))


def network_on(module: Module, repeats: int) -> Queue:
    """Returns what queues the network on a GPU."""

    def queue(source: int, target: int, shape: tuple[int, int, int], stream: int) -> None:
        threads = int(np.prod(shape)) // STRIDE**2
        params = _PARAMS.pack(source, target, *shape, repeats)
        grid = Dim3(-(-threads // _THREADS.x))
        module.queue(_Launch("block_means", params, grid), stream=stream)

    return queue


def queue_copy(module: Module, source: int, target: int, size_bytes: int, stream: int) -> None:
    """Queues a copy on the device of a multiple of 16 bytes."""
    grid = Dim3(-(-size_bytes // 16 // _THREADS.x))
    params = _PARAMS.pack(source, target, 1, 1, size_bytes // 4, 1)
    module.queue(_Launch("copy", params, grid), stream=stream)


def emulated_network(driver: ctypes.CDLL) -> Queue:
    """Returns what queues the network on the emulated driver."""

    def queue(source: int, target: int, shape: tuple[int, int, int], stream: int) -> None:
        addresses = ctypes.c_void_p(source), ctypes.c_void_p(target)
        driver.emulated_block_means(*addresses, *shape, ctypes.c_void_p(stream))

    return queue


class StandInSet:
    """Memory and a stream; see :class:`cclseg.gpu.network.DeviceSet`."""

    def __init__(self, device: Device, spec: ModelSpec, tiles: int, queue: Queue) -> None:
        self.stream: Stream = device.stream()
        self._tile = (len(spec.bands), *spec.input_hw)
        size_bytes = 4 * tiles * int(np.prod(self._tile))
        self.source = device.allocate(size_bytes)
        self.target = device.allocate(size_bytes // STRIDE**2)
        self._queue = queue

    def infer(self, count: int) -> None:
        bands, height, width = self._tile
        self._queue(self.source, self.target, (count * bands, height, width), self.stream.handle)

    def settle(self) -> None:
        """Nobody else uses it."""


class StandInNetwork:
    """Two sets of buffers; see :class:`cclseg.gpu.network.DeviceNetwork`."""

    def __init__(self, device: Device, spec: ModelSpec, *, tiles: int, queue: Queue) -> None:
        self.device, self.tiles_per_call = device, tiles
        self.sets = [StandInSet(device, spec, tiles, queue) for _ in range(2)]
