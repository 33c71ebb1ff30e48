"""Arrays of other libraries, on the host and on a GPU, and masks on a GPU for other libraries.

DLPack is asked first: it says who waits for whom. ``__cuda_array_interface__`` serves the
libraries that lack it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from . import dlpack

if TYPE_CHECKING:
    from .device import Device, Stream

_ON_HOST = (dlpack.CPU, dlpack.CUDA_HOST)
_ON_GPU = (dlpack.CUDA, dlpack.CUDA_MANAGED)
_DEFAULT_STREAM = 1  # CU_STREAM_LEGACY


def is_on_gpu(array: object) -> bool:
    """Says whether an array lies in the memory of a GPU."""
    if hasattr(array, "__dlpack_device__"):
        return int(array.__dlpack_device__()[0]) in _ON_GPU
    return hasattr(array, "__cuda_array_interface__")


def on_host(array: object) -> object:
    """Returns a numpy array of what another library keeps on the host, without a copy.

    What is no array is returned as it is.

    Raises:
        InputError: The array lies on a GPU or another device, or its library does not hand it out.
    """
    if isinstance(array, np.ndarray):
        return array
    if is_on_gpu(array):
        raise InputError(
            "the frame lies in the memory of a GPU, and the network runs on the CPU; copy it to "
            "the host (.cpu().numpy(), .get()), or open an engine for the GPU: cclseg build"
        )
    if not hasattr(array, "__dlpack_device__"):
        return array
    kind = int(array.__dlpack_device__()[0])
    if kind not in _ON_HOST:
        raise InputError(
            f"the frame lies on a device of DLPack's kind {kind}; expected the CPU or CUDA"
        )
    try:
        return np.from_dlpack(array)  # type: ignore[arg-type]  # has __dlpack__, by the protocol
    except (BufferError, RuntimeError, TypeError) as error:
        raise _unreadable(array, error) from error


def _unreadable(array: object, error: Exception) -> InputError:
    return InputError(
        f"the frame is a {type(array).__name__} that cannot be read: {error}; give a uint8 array "
        "(of torch: detached)"
    )


@dataclass(frozen=True, slots=True)
class DeviceView:
    """An array of another library in device memory.

    Attributes:
        address: Of its first value.
        shape: Its extents.
        strides: Bytes from place to place along each axis.
        dtype: Type of its values.
        owner: What keeps the memory; to be held until the work with it is done.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object


def view_on_device(array: Any, device: Device, stream: Stream, event: int) -> DeviceView:  # noqa: ANN401
    """Reads where an array lies, and lets a stream wait until it is complete; no host waits.

    Args:
        array: For which :func:`is_on_gpu` is true.
        device: Where it should lie; current.
        stream: In which it will be read.
        event: Marks the place in the stream of the array's library.

    Raises:
        InputError: It lies on another GPU, or does not say what it should.
    """
    if hasattr(array, "__dlpack__"):
        return _from_dlpack(array, device, stream)
    described = array.__cuda_array_interface__
    try:
        dtype, shape = np.dtype(described["typestr"]), tuple(described["shape"])
        address, producer = described["data"][0], described.get("stream")
        strides = described.get("strides") or dlpack.dense_strides(shape, dtype.itemsize)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"the frame's __cuda_array_interface__ is {described!r}; expected version 3"
        ) from error
    if producer == 0:
        raise InputError(
            "the frame's __cuda_array_interface__ names the stream 0, which its version 3 forbids "
            "as ambiguous; expected None, 1, 2 or a handle"
        )
    # None says that nobody has to wait, and pycuda says so of what its default stream still writes.
    stream.follow(_DEFAULT_STREAM if producer is None else int(producer), event)
    return DeviceView(int(address), shape, tuple(strides), dtype, array)


def _from_dlpack(array: Any, device: Device, stream: Stream) -> DeviceView:  # noqa: ANN401
    number = int(array.__dlpack_device__()[1])
    if number != device.index:
        raise InputError(
            f"the frame lies on GPU {number}, and the network on GPU {device.index}; copy it there"
        )
    try:
        capsule = array.__dlpack__(stream=stream.handle)
    except (BufferError, RuntimeError, TypeError) as error:
        raise _unreadable(array, error) from error
    seen = dlpack.read_capsule(capsule)
    return DeviceView(seen.address, seen.shape, seen.strides, seen.dtype, (array, capsule))


class DeviceArray:
    """An array of ours in device memory, complete when it is handed out.

    It is taken without a copy by what reads ``__dlpack__`` (torch, CuPy, JAX) or
    ``__cuda_array_interface__`` (pycuda, numba, cuda-python). Its memory is used again once
    nothing refers to it: keep it until the work with it is done. It ends with its segmenter.

    Attributes:
        shape: Its extents.
        dtype: Type of its values.

    Example:
        >>> mask = torch.from_dlpack(segment(frame).device_mask)  # doctest: +SKIP
    """

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        device: Device,
        owner: object,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._address, self._device, self._owner = address, device, owner

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self._device.check_open()
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._address, False),
            "strides": None,
            "stream": None,  # nobody has to wait
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self._device.index

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        self._device.check_open()
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("a mask on a GPU is handed out where it lies, without a copy")
        strides = dlpack.dense_strides(self.shape, self.dtype.itemsize)
        exported = dlpack.Exported(
            self._address, self.shape, strides, self.dtype, self.__dlpack_device__()
        )
        return dlpack.make_capsule(exported, self)
