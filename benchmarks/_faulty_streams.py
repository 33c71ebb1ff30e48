"""Streams under observation, and the processes that are done harm to."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

# Servers, links and networks are those of the tests, for the modules that import this one too.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import numpy as np
from networks import write_brightest_band

from cclseg import Segmenter

if TYPE_CHECKING:
    from cclseg.sources import Source

SMALL = "video/x-raw,format=I420,width=64,height=48,framerate=50/1"
CAMERA = f"gst:videotestsrc is-live=true ! {SMALL}"
GIVE_UP_S = 60.0


class Bench:
    """A segmenter with a tiny network, and a folder for what comes up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = write_brightest_band(folder / "network.onnx")
        self.segment = Segmenter(self.network, backend="onnxruntime", threads=1)


class Watched:
    """A stream that a thread reads: when results came, and what happened to the source."""

    def __init__(self, segment: Segmenter, source: str | Source | dict[str, str]) -> None:
        self.events: list[str] = []
        self.results: list[tuple[float, str]] = []
        self._stream = segment.stream(
            source, on_event=lambda event: self.events.append(event.state)
        )
        self._thread = threading.Thread(target=self._take)

    def _take(self) -> None:
        for out in self._stream:
            assert out.frame is not None
            self.results.append((time.monotonic(), out.frame.stream))

    def runs(self, results: int = 10) -> None:
        """Waits for some more results."""
        target = len(self.results) + results
        until(lambda: len(self.results) >= target)

    def becomes(self, state: str) -> None:
        """Waits until the source has been in a state."""
        until(lambda: state in self.events)

    def next_after(self, start_s: float) -> float:
        """Waits for the next result and returns how long after a moment it came."""
        until(lambda: bool(self.results) and self.results[-1][0] > start_s)
        return next(at_s for at_s, _ in self.results if at_s > start_s) - start_s

    def longest_gap_s(self, since_s: float, stream: str = "") -> float:
        """Returns the longest time without a result since a moment."""
        times_s = [at_s for at_s, name in self.results if at_s > since_s and name == stream]
        return float(np.diff([since_s, *times_s, time.monotonic()]).max())

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.stop()
        self._thread.join()
        self._stream.close()


@contextmanager
def program(bench: Bench, out: str) -> Iterator[subprocess.Popen[str]]:
    """Runs ``cclseg predict`` on a camera that never ends."""
    command = [sys.executable, "-m", "cclseg", "predict", CAMERA, "-m", str(bench.network)]
    process = subprocess.Popen(
        [*command, "--backend", "onnxruntime", "-o", out], cwd=bench.folder, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def launch(pipeline: str, target: Path) -> None:
    """Writes what a pipeline makes into a file."""
    words = ["gst-launch-1.0", "-q", *pipeline.split(), "!", "filesink", f"location={target}"]
    subprocess.run(words, check=True)


def children() -> list[int]:
    return [
        int(child)
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + GIVE_UP_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"it did not happen within {GIVE_UP_S:.0f} s")
        time.sleep(0.005)
