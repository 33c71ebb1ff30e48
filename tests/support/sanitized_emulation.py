"""Runs the emulated kernels; started with a sanitizer's library preloaded, which ends it."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import cuda_emulation
import image_emulation
import numpy as np
from image_emulation import ImageEmulation, random_tiles
from networks import brightest_band_spec

from cclseg.correlation_cuda import Correlation
from cclseg.tiling import plan_tiles

_FLAGS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def correlation(folder: Path) -> None:
    library = ctypes.CDLL(str(cuda_emulation.build(folder, *_FLAGS)))
    rng = np.random.default_rng(0)
    runs = 0
    for shape in [(1, 3, 5, 7), (2, 10, 9, 68)]:
        for radius in (0, 1, 2, 3, 4, 6):
            for map_type in ("float32", "float16", "int8"):
                a, b = (rng.normal(size=(2, *shape)) * 20).astype(map_type)
                what = Correlation(
                    shape, radius=radius, dilation=1 + radius % 2, normalize=True,
                    map_type=map_type, out_type=map_type, out_scale=0.01,
                )  # fmt: skip
                cuda_emulation.correlate(library, what, a, b)
                runs += 1
    sys.stdout.write(f"{runs} runs\n")


def image(folder: Path) -> None:
    kernels = ImageEmulation(image_emulation.build(folder, *_FLAGS))
    rng = np.random.default_rng(0)
    spec = brightest_band_spec(tile_hw=(12, 20))
    for size_hw in [(1, 1), (7, 13), (41, 53)]:
        frame = rng.integers(0, 256, (*size_hw, 3), np.uint8)
        plan = plan_tiles(size_hw, spec.input_hw, overlap=0.3, stride=4)
        for half in (False, True):
            kernels.normalise(frame, spec, plan.corners, channels="bgr", half=half)
        canvas = kernels.blend(plan, random_tiles(plan, 3, seed=1), tiles_per_call=2)
        for dtype in ("uint8", "uint16", "float32"):
            kernels.result(canvas, stride=4, size_hw=size_hw, dtype=dtype)


if __name__ == "__main__":
    {"correlation": correlation, "image": image}[sys.argv[1]](Path(sys.argv[2]))
