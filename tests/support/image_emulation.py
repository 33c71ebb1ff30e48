"""The image kernels run on the CPU, by the plans that a GPU gets."""

from __future__ import annotations

import ctypes
import subprocess
from importlib.resources import files
from pathlib import Path

import numpy as np

from cclseg.gpu.image_kernels import (
    DeviceImage,
    TileTables,
    band_table,
    plan_blend,
    plan_normalise,
    plan_result,
)
from cclseg.preprocess import channel_places


def build(folder: Path, *flags: str) -> Path:
    """Compiles the kernels for the CPU."""
    source = files("cclseg").joinpath("native/cuda/emulate_image.cpp")
    library = folder / "emulated_image.so"
    subprocess.run(
        ["g++", "-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror",
         "-Wno-unknown-pragmas", "-fPIC", "-shared", *flags, "-o", library, str(source)],
        check=True,
    )  # fmt: skip
    return library


class ImageEmulation:
    """Runs the kernels on arrays; what they return is theirs to write from end to end."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def run(self, plan):
        extents = [(ctypes.c_int * 3)(*each) for each in (plan.grid, plan.threads)]
        params = ctypes.create_string_buffer(plan.params, len(plan.params))
        self._library.cclseg_emulate_image(plan.kernel.encode(), *extents, params)

    def normalise(self, image, spec, corners, *, channels, half=False):
        """Returns the tiles of an image at corners, (N, C, h, w)."""
        places = channel_places(spec, channels)
        bands = band_table(spec.mean, spec.std, places)
        corners = np.array(corners, np.int32)
        shape = (len(corners), len(spec.bands), *spec.input_hw)
        tiles = rubbish(shape, np.float16 if half else np.float32)
        seen = DeviceImage(image.ctypes.data, image.shape, image.strides)
        self.run(
            plan_normalise(
                seen, tiles.ctypes.data, shape,
                corners=corners.ctypes.data, bands=bands.ctypes.data, half=half,
            )
        )  # fmt: skip
        return tiles

    def blend(self, plan, logits, *, tiles_per_call):
        """Returns the canvas of a frame from the logits of its tiles, (N, K, h, w)."""
        classes, *logits_hw = logits.shape[1:]
        arrays = (
            np.array(plan.corners, np.int32),
            np.stack(plan.row_weights),
            np.stack(plan.column_weights),
        )
        tables = TileTables(*(a.ctypes.data for a in arrays), len(plan.lefts), plan.stride)
        canvas = rubbish((classes, *plan.canvas_hw), np.float32)
        for first in range(0, len(logits), tiles_per_call):
            group = np.ascontiguousarray(logits[first : first + tiles_per_call])
            self.run(
                plan_blend(
                    canvas.ctypes.data, canvas.shape, group.ctypes.data, tuple(logits_hw),
                    tables=tables, first=first, count=len(group),
                )
            )  # fmt: skip
        return canvas

    def result(self, canvas, *, stride, size_hw, dtype):
        """Returns class ids or confidence, (H, W)."""
        canvas = np.ascontiguousarray(canvas)
        out = rubbish(size_hw, dtype)
        self.run(
            plan_result(
                canvas.ctypes.data, canvas.shape, out.ctypes.data, size_hw,
                stride=stride, dtype=dtype,
            )
        )  # fmt: skip
        return out


def rubbish(shape, dtype):
    """An array full of bytes that mean nothing, aligned for vectors as every allocation is."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    array = np.full(size, 0xA5, np.uint8).view(dtype).reshape(shape)
    assert array.ctypes.data % 16 == 0
    return array


def random_tiles(plan, classes, seed):
    """Logits of every tile of a frame."""
    height, width = (length // plan.stride for length in plan.tile_hw)
    rng = np.random.default_rng(seed)
    return rng.normal(size=(len(plan.corners), classes, height, width)).astype(np.float32)
