"""What a warm segmenter allocates for a frame: its result, and nothing else of a frame's size."""

from __future__ import annotations

import threading
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from networks import brightest_band_spec

from cclseg import Segmenter
from cclseg.backends.base import Backend, logits_hw
from cclseg.frame_kernels import CHOICE_VARIABLE

TILE_HW = (192, 256)
FRAME_HW = (539, 962)  # of no tile's multiple, so that edges are mirrored
SLACK_BYTES = 64 * 1024  # names, times and queues; a frame has 1.5 MB, a tile's logits 37 kB
PATIENCE_S = 60


class OneAnswer(Backend):
    """Gives every tile the same logits, from memory of its own."""

    name = "one-answer"
    suffixes = ()
    tiles_per_call = 4

    def __init__(self, spec):
        super().__init__(spec)
        shape = (self.tiles_per_call, spec.num_classes, *logits_hw(spec))
        self._logits = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    @classmethod
    def open(cls, path, *, spec=None, threads=None):
        return cls(spec)

    def _infer(self, images):
        return self._logits[: len(images)]


@pytest.fixture
def segmenter():
    with Segmenter.from_backend(OneAnswer(brightest_band_spec(input_hw=TILE_HW))) as opened:
        yield opened


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(0, 256, (*FRAME_HW, 3), np.uint8)


@contextmanager
def traced():
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def beyond_the_result(make_result):
    """Returns the most bytes that were allocated at a time, besides what the result holds."""
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    result = make_result()
    peak = tracemalloc.get_traced_memory()[1] - before
    return peak - result.mask.nbytes - result._logits.nbytes


def test_counting_sees_a_copy_of_the_frame(image):
    with traced():
        before = tracemalloc.get_traced_memory()[0]
        image.copy()
        assert tracemalloc.get_traced_memory()[1] - before >= image.nbytes


@pytest.mark.usefixtures("form")
def test_a_call_allocates_its_result_alone(segmenter, image, form):
    segmenter(image)
    with traced():
        extra = max(beyond_the_result(lambda: segmenter(image)) for _ in range(3))
    # OpenCV enlarges in bands of three float and two small maps, and mirrors edges by copies.
    bands = 0 if form == "compiled" else 1_000_000
    assert extra <= SLACK_BYTES + bands


@pytest.mark.usefixtures("form")
def test_a_stream_allocates_its_results_alone(segmenter, image, form):
    room = threading.Semaphore(0)

    def one_at_a_time():
        while room.acquire(timeout=PATIENCE_S):
            yield image

    def next_result():
        room.release()
        return next(stream)

    with segmenter.stream(one_at_a_time()) as stream:
        for _ in range(3):
            next_result()
        with traced():
            extra = max(beyond_the_result(next_result) for _ in range(5))
        stream.stop()
        room.release()  # ends the wait of the source
    bands = 0 if form == "compiled" else 1_000_000
    assert extra <= SLACK_BYTES + bands


def test_the_image_is_read_in_place(segmenter, image, monkeypatch):
    monkeypatch.delenv(CHOICE_VARIABLE, raising=False)
    image.flags.writeable = False
    segmenter(image)
    segmenter(image[:, ::-1])
    view = np.broadcast_to(image[:, :1], image.shape)  # steps of zero bytes
    np.testing.assert_array_equal(segmenter(view).mask, segmenter(view.copy()).mask)
