"""Memory, threads and descriptors of a stream over many frames and many openings.

Usage: python benchmarks/soak.py [--frames 100000] [--openings 10000]

The network is a mean over blocks of pixels, so that frames are many and what is left behind is the
stream's own. Times are not reported: nothing here says how fast a stream is.
"""

from __future__ import annotations

import argparse
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _record import write_result

from cclseg import ModelSpec, Segmenter
from cclseg.backends.base import Backend
from cclseg.errors import SpecError
from cclseg.sources.arrays import ArraySource

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FRAME_HW = (48, 64)
_LOOKS = 20


class BlockMeans(Backend):
    """Gives each block of 4 x 4 pixels the mean of its bands as logits."""

    name = "block-means"
    suffixes = ()

    @classmethod
    def open(
        cls, path: Path, *, spec: ModelSpec | None = None, threads: int | None = None
    ) -> Backend:
        """Makes one for a spec; there is no file to read."""
        if spec is None:
            raise SpecError("block means have no file that describes them; give a spec")
        return cls(spec)

    def _infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        count, bands, height, width = images.shape
        return images.reshape(count, bands, height // 4, 4, width // 4, 4).mean(axis=(3, 5))


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--openings", type=int, default=10_000)
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    spec = ModelSpec(name="block-means", class_names=("a", "b", "c"), input_hw=(32, 32))
    with Segmenter.from_backend(BlockMeans(spec)) as segment:
        content = {
            "frames": _over_frames(segment, arguments.frames),
            "openings": _over_openings(segment, arguments.openings),
        }
    print(write_result("soak", content, arguments.out))


def _over_frames(segment: Segmenter, count: int) -> list[dict[str, float]]:
    looks = []
    with segment.stream(ArraySource(_images(count), live=True), policy="all") as stream:
        for number, _ in enumerate(stream, start=1):
            if number % max(1, count // _LOOKS) == 0:
                looks.append({"number": number, **_look()})
    return looks


def _over_openings(segment: Segmenter, count: int) -> list[dict[str, float]]:
    looks = []
    for number in range(1, count + 1):
        with segment.stream(_images(3)) as stream:
            next(stream)
        if number % max(1, count // _LOOKS) == 0:
            looks.append({"number": number, **_look()})
    return looks


def _images(count: int) -> Iterator[NDArray[np.uint8]]:
    return (np.full((*_FRAME_HW, 3), index % 256, np.uint8) for index in range(count))


def _look() -> dict[str, float]:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "objects": len(gc.get_objects()),
        "threads": threading.active_count(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }


if __name__ == "__main__":
    main()
