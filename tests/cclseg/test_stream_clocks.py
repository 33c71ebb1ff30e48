"""Streams over a long time and through a jump of the clock."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from networks import colour_patches
from streaming import require_gstreamer, until

from cclseg import Segmenter
from cclseg.frame import Frame
from cclseg.sources import Source


class Hour(Source):
    """A camera's hour in simulated time: ten frames a second, as many as are let through."""

    name, live, fps = "hour", True, 10.0
    total = 36_000

    def __init__(self):
        self.given = 0
        self._let_through = threading.Semaphore(0)
        self._image = colour_patches((32, 32))

    def run(self, frames):
        """Lets time go on by some frames, and waits until they were given."""
        target = self.given + frames
        self._let_through.release(frames)
        until(lambda: self.given >= target, every_s=0.0005)

    def frames(self, *, on_error=None):
        for index in range(self.total):
            self._let_through.acquire()
            self.given = index + 1
            yield Frame(self._image, index, f"frame_{index}", timestamp_s=index / self.fps)

    def interrupt(self):
        self._let_through.release(self.total)


def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.parametrize("policy", ["latest", "drop-oldest"])
def test_behind_a_consumer_that_is_too_slow_for_an_hour_nothing_grows(network, policy):
    """It takes a result every four seconds; a backlog would be as old as the hour."""
    camera, memory_mb, ages_s = Hour(), [], []
    with (
        Segmenter(network, backend="onnxruntime", threads=1) as segment,
        segment.stream(camera, policy=policy) as stream,
    ):
        starter = threading.Thread(target=camera.run, args=(40,))
        starter.start()
        next(stream)
        starter.join()
        while camera.given < camera.total:
            camera.run(min(40, camera.total - camera.given))
            out = next(stream)
            ages_s.append(camera.given / camera.fps - out.frame.timestamp_s)
            memory_mb.append(resident_mb())
        taken = len(ages_s) + 1 + len(list(stream))
    stats = stream.stats()
    assert taken == stats.delivered
    assert stats.captured == 36_000 == stats.delivered + stats.dropped + stats.superseded
    # At most 8 frames wait, a few are on their way, 2 results wait; each take hands out one.
    assert max(ages_s) <= 20 * 4
    assert max(memory_mb[100:]) - memory_mb[100] < 5


PROGRAM = """
import json, sys, time
from cclseg import Segmenter, open_source

states = []
camera = open_source(sys.argv[1], on_event=lambda event: states.append(event.state))
with Segmenter(sys.argv[2], backend="onnxruntime", threads=1) as segment:
    for out in segment.stream(camera):
        print(json.dumps([time.time(), out.frame.timestamp_s, out.age_ms, states]), flush=True)
"""


@pytest.fixture
def clock(tmp_path):
    """The environment in which the wall clock is ours, and the file that sets it."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed, which moves the clock of one process")
    setting = tmp_path / "clock"
    setting.write_text("+0\n")
    return setting, os.environ | {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(setting),
        "FAKETIME_CACHE_DURATION": "1",  # seconds until it looks again
        # Its substitute for waits, made for old C libraries, comes late by seconds in new ones.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def test_a_jump_of_the_clock_goes_unnoticed(network, clock):
    require_gstreamer()
    setting, environment = clock
    camera = "gst:videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=50/1"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, camera, str(network)],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    results = []
    try:
        for jump_s in (0, 7200, -7200):
            setting.write_text(f"{jump_s:+d}\n")
            while not results or abs(results[-1][0] - time.time() - jump_s) > 1000:
                results.append(json.loads(process.stdout.readline()))
            results += [json.loads(process.stdout.readline()) for _ in range(30)]
    finally:
        process.kill()
        process.communicate()
    steps_s = np.diff([wall_s for wall_s, _, _, _ in results])
    assert steps_s.max() > 7000
    assert steps_s.min() < -14_000
    assert results[-1][3] == ["connecting", "live"]
    times_s = np.array([timestamp_s for _, timestamp_s, _, _ in results])
    assert (np.diff(times_s) > 0).all()
    assert times_s[-1] < 1000
    assert all(0 < age_ms < 1_000_000 for _, _, age_ms, _ in results)
