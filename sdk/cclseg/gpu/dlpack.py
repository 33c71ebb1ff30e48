"""DLPack: how libraries hand arrays to each other, on whatever device; by its C structs.

The protocol is described at https://dmlc.github.io/dlpack/latest/ (version 0.8, which all
libraries still speak: the capsule "dltensor").
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13  # DLDeviceType

_NAME = b"dltensor"
_KINDS = {"i": 0, "u": 1, "f": 2}  # DLDataTypeCode


class _Device(ctypes.Structure):
    _fields_ = [("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _ManagedTensor(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_ManagedTensor))
_ManagedTensor._fields_ = [
    ("tensor", _Tensor),
    ("manager", ctypes.c_void_p),
    ("deleter", _Deleter),
]

_api = ctypes.pythonapi
_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(
    ("PyCapsule_New", _api)
)
_pointer_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
# For the destructor, which must not touch the reference count of what is going away.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", _api)
)
_pointer_in_dying = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)


@dataclass(frozen=True, slots=True)
class Exported:
    """What a capsule says of an array.

    Attributes:
        address: Of its first value.
        shape: Its extents.
        strides: Bytes from place to place along each axis.
        dtype: Type of its values.
        device: DLDeviceType and number.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    device: tuple[int, int]


def read_capsule(capsule: object) -> Exported:
    """Reads what ``__dlpack__`` returned; the memory is there as long as the capsule.

    Raises:
        InputError: Its values are of a kind that numpy has not.
    """
    managed = ctypes.cast(_pointer_in(capsule, _NAME), ctypes.POINTER(_ManagedTensor)).contents
    tensor = managed.tensor
    kinds = {code: kind for kind, code in _KINDS.items()}
    if tensor.dtype.code not in kinds or tensor.dtype.lanes != 1:
        raise InputError(
            f"got an array of DLPack's type {tensor.dtype.code} in {tensor.dtype.lanes} lanes; "
            "expected uint8 values"
        )
    dtype = np.dtype(f"{kinds[tensor.dtype.code]}{tensor.dtype.bits // 8}")
    shape = tuple(tensor.shape[: tensor.ndim])
    steps = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else dense_strides(shape, 1)
    return Exported(
        address=(tensor.data or 0) + tensor.byte_offset,
        shape=shape,
        strides=tuple(step * dtype.itemsize for step in steps),
        dtype=dtype,
        device=(tensor.device.device_type, tensor.device.device_id),
    )


class _Export:
    """A tensor that some library may hold, with what keeps its memory."""

    def __init__(self, exported: Exported, owner: object) -> None:
        ndim = len(exported.shape)
        steps = (stride // exported.dtype.itemsize for stride in exported.strides)
        self.owner = owner
        self.shape = (ctypes.c_int64 * ndim)(*exported.shape)
        self.steps = (ctypes.c_int64 * ndim)(*steps)
        self.managed = _ManagedTensor(
            _Tensor(
                exported.address,
                _Device(*exported.device),
                ndim,
                _DataType(_KINDS[exported.dtype.kind], 8 * exported.dtype.itemsize, 1),
                self.shape,
                self.steps,
                0,
            ),
            None,
            _on_forget,
        )


_exports: dict[int, _Export] = {}


def make_capsule(exported: Exported, owner: object) -> object:
    """Returns a capsule of an array for ``__dlpack__``.

    Args:
        exported: The array.
        owner: What keeps its memory; held until the receiver is done with the array.
    """
    export = _Export(exported, owner)
    address = ctypes.addressof(export.managed)
    _exports[address] = export
    capsule: object = _new_capsule(address, _NAME, _on_drop)
    return capsule


def _forget(managed: Any) -> None:  # noqa: ANN401 - a pointer of ctypes
    _exports.pop(ctypes.addressof(managed.contents), None)


def _drop_capsule(capsule: int) -> None:
    """Frees what nobody took: a receiver gives the capsule another name."""
    if _is_valid(capsule, _NAME):
        _exports.pop(_pointer_in_dying(capsule, _NAME), None)


_on_forget, _on_drop = _Deleter(_forget), _Destructor(_drop_capsule)


def dense_strides(shape: tuple[int, ...], item_bytes: int) -> tuple[int, ...]:
    """Returns the bytes from place to place along each axis of an array without gaps."""
    return tuple(item_bytes * int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
