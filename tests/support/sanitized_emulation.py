"""Runs the emulated kernels; started with a sanitizer's library preloaded, which ends it."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import cuda_emulation
import numpy as np

from cclseg.correlation_cuda import Correlation


def main(folder: Path) -> None:
    flags = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
    library = ctypes.CDLL(str(cuda_emulation.build(folder, *flags)))
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
