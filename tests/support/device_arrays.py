"""Arrays of other libraries as they describe themselves, on the emulated device's memory."""

from __future__ import annotations

import ctypes

import numpy as np

from cclseg.gpu import dlpack


class CudaArray:
    """What pycuda's GPUArray, CuPy's arrays and torch's tensors say of themselves."""

    def __init__(self, address, shape, dtype=np.uint8, *, strides=None, stream=None):
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": np.dtype(dtype).str,
            "data": (address, False),
            "strides": strides,
            "stream": stream,
            "version": 3,
        }


class DlpackArray:
    """What torch and CuPy hand out: they let the stream that is named wait for their own."""

    def __init__(self, address, shape, *, number=0, kind=dlpack.CUDA, follow=None):
        strides = dlpack.dense_strides(shape, 1)
        self.device, self.follow, self.streams = (kind, number), follow, []
        self.exported = dlpack.Exported(address, shape, strides, np.dtype(np.uint8), self.device)

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None):
        self.streams.append(stream)
        if self.follow is not None:
            self.follow(stream)
        return dlpack.make_capsule(self.exported, self)


def bytes_at(address, shape, dtype):
    """What lies at an address of the emulated device, which is the host's memory."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(ctypes.string_at(address, size), dtype).reshape(shape)
