"""How many threads of the operating system a segmenter takes, counted in /proc."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from native_libraries import native_library
from networks import brightest_band_spec, write_brightest_band

from cclseg.backends.choose import load_backend
from cclseg.frame_kernels import CHOICE_VARIABLE
from cclseg.ops_build import FOLDER_VARIABLE

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="threads are counted in /proc/self/task"
)

STAGES = 4  # capture, prepare, infer, finish

PROGRAM = """
import importlib, os, sys, time
import cv2, numpy as np
from cclseg import Segmenter

path, backend, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
importlib.import_module(backend)  # what a library starts by itself is not a segmenter's

def count(at_most=None):
    deadline = time.monotonic() + 60  # a thread that was joined is gone a moment later
    while True:
        found = len(os.listdir("/proc/self/task")) - before
        if at_most is None or found <= at_most or time.monotonic() > deadline:
            return found
        time.sleep(0.01)

frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
before = 0
before = count()
with Segmenter(path, backend=backend, threads=threads) as first:
    opened = count()
    first(frame)
    called = count()
    with first.stream([frame] * 4) as stream:
        streamed = max(count() for _ in stream)
    with Segmenter(path, backend=backend, threads=threads) as second:
        second(frame)
        two = count(2 * opened)
    print(opened, called, streamed, two)
cv2.resize(frame, (640, 360))
print(count())
"""


@pytest.fixture(scope="module")
def large_network(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "large.onnx"
    return write_brightest_band(path, brightest_band_spec(tile_hw=(512, 512)))


def counted(network, backend, threads, form):
    load_backend(backend)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if form == "compiled":
        environment[FOLDER_VARIABLE] = str(native_library("onnxruntime").parent)
        environment.pop(CHOICE_VARIABLE, None)
    else:
        environment[CHOICE_VARIABLE] = form
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(network), backend, str(threads)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("form", ["compiled", "opencv"])
@pytest.mark.parametrize("threads", [1, 3])
def test_onnx_runtime_takes_the_threads_that_it_is_given(large_network, threads, form):
    opened, called, streamed, two, _ = counted(large_network, "onnxruntime", threads, form)
    assert opened == threads - 1  # the caller is one of them
    assert called == opened
    assert streamed <= opened + STAGES
    assert two == 2 * opened


@pytest.mark.parametrize("form", ["compiled", "opencv"])
def test_openvino_with_one_thread_never_takes_more(large_network, form):
    opened, called, streamed, _, _ = counted(large_network, "openvino", 1, form)
    assert called == opened  # those of its own that wait for work
    assert streamed <= opened + STAGES


def test_opencv_has_threads_of_its_own_that_segmenting_leaves_alone(large_network):
    # OpenCV starts its pool at its first large piece of work, here the program's own.
    if (os.cpu_count() or 1) == 1:
        pytest.skip("OpenCV has no pool on one processor")
    *_, streamed, two, at_the_end = counted(large_network, "onnxruntime", 1, "opencv")
    assert two == 0
    assert streamed <= STAGES
    assert at_the_end >= 1
