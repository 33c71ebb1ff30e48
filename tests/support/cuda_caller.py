"""Owns a CUDA context, memory and a stream, and has the correlation computed in them.

Started as ``cuda_caller.py ctypes|cuda-python|pycuda`` with the emulated driver on LD_LIBRARY_PATH,
before anything loads another one. Prints one line where every result is that of the definition.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys

import numpy as np

from cclseg.correlation import local_correlation
from cclseg.correlation_cuda import Correlation, CudaCorrelation


class Ctypes:
    """The driver's C interface."""

    def __init__(self):
        self.driver = ctypes.CDLL("libcuda.so.1")
        context, stream = ctypes.c_void_p(), ctypes.c_void_p()
        self.driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        self.driver.cuCtxSetCurrent(context)
        self.driver.cuStreamCreate(ctypes.byref(stream), 0)
        self.stream = stream.value

    def allocate(self, nbytes):
        pointer = ctypes.c_void_p()
        self.driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(nbytes))
        return pointer.value

    def upload(self, pointer, array):
        self.driver.cuMemcpyHtoD_v2(
            ctypes.c_void_p(pointer),
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
        )

    def download(self, array, pointer):
        self.driver.cuStreamSynchronize(ctypes.c_void_p(self.stream))
        self.driver.cuMemcpyDtoH_v2(
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_void_p(pointer),
            ctypes.c_size_t(array.nbytes),
        )


class CudaPython:
    """NVIDIA's Python library."""

    def __init__(self):
        from cuda.bindings import driver

        self.driver = driver
        self._call("cuInit", 0)
        device = self._call("cuDeviceGet", 0)
        self._call("cuCtxSetCurrent", self._call("cuDevicePrimaryCtxRetain", device))
        self.stream = int(self._call("cuStreamCreate", 0))

    def _call(self, name, *arguments):
        status, *values = getattr(self.driver, name)(*arguments)
        assert int(status) == 0, (name, status)
        return values[0] if values else None

    def allocate(self, nbytes):
        return int(self._call("cuMemAlloc", nbytes))

    def upload(self, pointer, array):
        self._call("cuMemcpyHtoD", pointer, array.ctypes.data, array.nbytes)

    def download(self, array, pointer):
        self._call("cuStreamSynchronize", self.stream)
        self._call("cuMemcpyDtoH", array.ctypes.data, pointer, array.nbytes)


def import_pycuda():
    """Imports pycuda on the emulated driver, which has not all that pycuda can call."""
    sys.setdlopenflags(os.RTLD_LAZY)
    # A pycuda that was built where no driver is does not name the library that it needs.
    ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
    import pycuda.driver

    return pycuda.driver


class PyCuda:
    """pycuda, which has a context stack and streams of its own."""

    def __init__(self):
        driver = import_pycuda()
        driver.init()
        self.driver, self.context = driver, driver.Device(0).retain_primary_context()
        self.context.push()
        self._stream, self._kept = driver.Stream(), []
        self.stream = self._stream.handle
        atexit.register(self.close)

    def close(self):
        del self._stream
        self._kept.clear()
        self.context.detach()

    def allocate(self, nbytes):
        self._kept.append(self.driver.mem_alloc(nbytes))
        return int(self._kept[-1])

    def upload(self, pointer, array):
        self.driver.memcpy_htod(pointer, array)

    def download(self, array, pointer):
        self._stream.synchronize()
        self.driver.memcpy_dtoh(array, pointer)


class DeviceArray:
    """What pycuda's GPUArray, CuPy's arrays and torch's tensors say of themselves."""

    def __init__(self, pointer, array):
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (pointer, False),
            "version": 3,
        }


def main(owner_name: str) -> None:
    owner = {"ctypes": Ctypes, "cuda-python": CudaPython, "pycuda": PyCuda}[owner_name]()
    emulated = ctypes.CDLL("libcuda.so.1")
    emulated.emulated_last_stream.restype = ctypes.c_void_p
    a, b = np.random.default_rng(0).normal(size=(2, 1, 6, 9, 21)).astype(np.float32)
    what = Correlation(a.shape, radius=2, dilation=2, groups=3, normalize=True)
    out = np.empty(what.out_shape, np.float32)
    pointers = tuple(owner.allocate(array.nbytes) for array in (a, b, out))
    for pointer, array in zip(pointers[:2], (a, b), strict=True):
        owner.upload(pointer, array)
    expected = local_correlation(a, b, radius=2, dilation=2, groups=3, normalize=True)
    arrays = [DeviceArray(*pair) for pair in zip(pointers, (a, b, out), strict=True)]
    with CudaCorrelation() as correlation:
        for queue in (
            lambda: correlation.launch(what, pointers, stream=owner.stream),
            lambda: correlation(what, *arrays, stream=owner.stream),
        ):
            owner.upload(pointers[2], np.full_like(out, 77))
            queue()
            assert emulated.emulated_last_stream() == owner.stream
            owner.download(out, pointers[2])
            np.testing.assert_allclose(out, expected, rtol=1e-5, atol=4e-6)
    sys.stdout.write("2 launches\n")


if __name__ == "__main__":
    main(sys.argv[1])
