"""The compiled forms of what happens to a frame outside the network, and the choice among them.

They live in the library that :mod:`cclseg.ops_build` compiles, one for each instruction set; the
best that this processor has is taken. Where nothing was compiled OpenCV and numpy do the same work
in two to three times the time. ``$CCLSEG_FRAME_KERNEL`` names one: "opencv", or what
:func:`kernel_names` lists; ``cclseg doctor`` says which one is in use.

All of them run in the thread that calls them, and release the interpreter's lock meanwhile.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BackendError, InputError
from .ops_build import FOLDER_VARIABLE, find_cpu_library
from .suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    from .frame import FloatArray, Image, Mask

CHOICE_VARIABLE = "CCLSEG_FRAME_KERNEL"
"""Environment variable that names the form to use."""

WITHOUT_KERNEL = "opencv"

_PLACES = (FOLDER_VARIABLE, "XDG_CACHE_HOME", "HOME")
"""What decides where a library is found."""


class _Window(ctypes.Structure):
    """``cclseg::Window`` of native/cpu/frame.h."""

    _fields_ = (
        ("image", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("height", "width")),
        *((name, ctypes.c_int64) for name in ("row_step", "column_step", "channel_step", "bands")),
        *((name, ctypes.c_void_p) for name in ("places", "mean", "deviation")),
        *((name, ctypes.c_int64) for name in ("top", "left", "rows", "columns")),
    )


class _Share(ctypes.Structure):
    """``cclseg::Share`` of native/cpu/frame.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("classes", "canvas_rows", "canvas_columns")),
        *((name, ctypes.c_int64) for name in ("top", "left", "rows", "columns")),
        *((name, ctypes.c_void_p) for name in ("row_weights", "column_weights")),
    )


class _Enlargement(ctypes.Structure):
    """``cclseg::Enlargement`` of native/cpu/frame.h."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("classes", "rows", "columns", "stride", "height", "width")
    )


class FrameKernel:
    """One compiled form.

    Attributes:
        name: Its instruction set ("avx512", "avx2", "neon", "portable").
        path: The library that holds it.
    """

    def __init__(self, library: ctypes.CDLL, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self._library = library
        self._handle = ctypes.c_void_p(library.cclseg_frame_kernel(name.encode()))

    def normalise(self, window: KernelWindow, top: int, left: int, out: FloatArray) -> None:
        """Writes one window of an image; see :meth:`cclseg.preprocess.Normaliser.normalise`."""
        target = _address(out, np.float32, 3, writes=True)
        fields = window.fields
        if len(out) != fields.bands:
            raise InputError(f"got room for {len(out)} bands; the image gives {fields.bands}")
        fields.top, fields.left = top, left
        fields.rows, fields.columns = out.shape[1:]
        self._library.cclseg_normalise(self._handle, ctypes.byref(fields), target)

    def add_tile(
        self,
        logits: FloatArray,
        canvas: FloatArray,
        corner: tuple[int, int],
        weights: tuple[FloatArray, FloatArray],
    ) -> None:
        """Adds the weighted logits of a tile; see :meth:`cclseg.tiling.Blender.add`.

        Args:
            logits: (K, h, w) float32, C-contiguous.
            canvas: (K, H, W) float32, C-contiguous.
            corner: (row, column) of the tile in the canvas.
            weights: (h,) and (w,) float32, of the rows and of the columns.
        """
        source = _address(logits, np.float32, 3)
        target = _address(canvas, np.float32, 3, writes=True)
        rows, columns = weights
        (classes, *canvas_hw), (top, left) = canvas.shape, corner
        fits = min(corner) >= 0 and top + len(rows) <= canvas_hw[0]
        if logits.shape != (classes, len(rows), len(columns)) or not (
            fits and left + len(columns) <= canvas_hw[1]
        ):
            raise InputError(
                f"logits {logits.shape} at {corner} do not fit the canvas {canvas.shape}"
            )
        share = _Share(
            classes, *canvas_hw, top, left, len(rows), len(columns),
            _address(rows, np.float32, 1), _address(columns, np.float32, 1),
        )  # fmt: skip
        self._library.cclseg_add_tile(self._handle, ctypes.byref(share), source, target)

    def class_ids(self, logits: FloatArray, mask: Mask, *, stride: int) -> None:
        """Writes the class of every pixel; see :func:`cclseg.postprocess.class_ids`.

        Args:
            logits: (K, h, w) float32, C-contiguous.
            mask: (H, W) uint8, beyond 255 classes uint16, C-contiguous; at most
                (h * stride, w * stride).
            stride: Output pixels per logit along each axis.
        """
        source = _address(logits, np.float32, 3)
        target = _address(mask, np.uint8 if len(logits) <= 255 else np.uint16, 2, writes=True)
        enlargement = _Enlargement(*logits.shape, stride, *mask.shape)
        done = self._library.cclseg_class_ids(
            self._handle, ctypes.byref(enlargement), source, target
        )
        if not done:
            raise MemoryError


class KernelWindow:
    """An image whose windows are normalised next.

    The image is not copied: it must stay as it is until they are written.

    Args:
        image: (H, W, C) uint8; any view.
        places: For each band of the network, its place on the image's last axis.
        mean: (bands,) float32.
        deviation: (bands,) float32.
    """

    def __init__(
        self, image: Image, places: Sequence[int], mean: FloatArray, deviation: FloatArray
    ) -> None:
        where = np.asarray(places, np.int64)
        self._kept = (image, where, mean, deviation)  # what the addresses point to
        self.fields = _Window(
            image.ctypes.data, *image.shape[:2], *image.strides, len(where),
            where.ctypes.data, mean.ctypes.data, deviation.ctypes.data, 0, 0, 0, 0,
        )  # fmt: skip


def frame_kernel() -> FrameKernel | None:
    """Returns the form that this process uses, None for OpenCV and numpy.

    The library is looked for once, as long as the environment names the same places.

    Raises:
        InputError: The environment names one that is not there.
        BackendError: The compiled library cannot be loaded.
    """
    return _chosen(os.environ.get(CHOICE_VARIABLE, ""), *(os.environ.get(name) for name in _PLACES))


@lru_cache(maxsize=8)
def _chosen(choice: str, *_places: str | None) -> FrameKernel | None:
    path = find_cpu_library("onnxruntime")
    if choice == WITHOUT_KERNEL or (path is None and not choice):
        return None
    names = kernel_names(path) if path is not None else ()
    if path is None or (choice and choice not in names):
        raise InputError(
            f"${CHOICE_VARIABLE} is '{choice}'; {did_you_mean(choice, [WITHOUT_KERNEL, *names])} "
            "(compiled ones come with: cclseg ops build)"
        )
    return FrameKernel(_opened(path), choice or names[0], path)


def kernel_names(path: Path) -> tuple[str, ...]:
    """Names the forms in a compiled library that this processor can run, best first.

    Raises:
        BackendError: The library cannot be loaded.
    """
    library = _opened(path)
    names: list[str] = []
    while name := library.cclseg_frame_kernel_name(len(names)):
        names.append(name.decode())
    return tuple(name for name in names if library.cclseg_frame_kernel(name.encode()))


@lru_cache(maxsize=4)
def _opened(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        library.cclseg_frame_kernel_name.restype = ctypes.c_char_p
        library.cclseg_frame_kernel.restype = ctypes.c_void_p
        for function in (library.cclseg_normalise, library.cclseg_add_tile):
            function.restype = None
    except (OSError, AttributeError) as error:
        raise BackendError(
            f"cannot load {path}: {error}; compile it again with: cclseg ops build, or do without "
            f"by {CHOICE_VARIABLE}={WITHOUT_KERNEL}"
        ) from error
    return library


def _address(
    array: NDArray[Any], dtype: DTypeLike, ndim: int, *, writes: bool = False
) -> ctypes.c_void_p:
    """Returns where an array stands, after making sure that it is what the library takes."""
    fits = array.dtype == dtype and array.ndim == ndim and array.flags.c_contiguous
    if not fits or (writes and not array.flags.writeable):
        raise InputError(
            f"got an array of {array.shape} {array.dtype}; expected {ndim} axes of "
            f"{np.dtype(dtype)}, C-contiguous{' and writeable' if writes else ''}"
        )
    return ctypes.c_void_p(array.ctypes.data)
