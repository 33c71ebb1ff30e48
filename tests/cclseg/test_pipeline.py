"""Jobs: everything that can be done is done, and every failure reaches the caller."""

import json
import traceback

import cv2
import numpy as np
import pytest
from contracts import frames_in, images_in
from leftovers import no_new_threads
from networks import colour_patches

from cclseg import Segmenter, open_sink, open_source
from cclseg.errors import BackendError, InputError, SinkError, SourceError
from cclseg.frame import Frame
from cclseg.image_files import read_mask
from cclseg.pipeline import run_job
from cclseg.sinks import Sink
from cclseg.sources import Source


@pytest.fixture(scope="module")
def segment(network):
    with Segmenter(network, backend="onnxruntime", threads=1) as segmenter:
        yield segmenter


@pytest.fixture(autouse=True)
def _no_thread_stays_behind(segment):
    with no_new_threads():
        yield


@pytest.fixture
def flight(tmp_path):
    """A folder of six images."""
    folder = tmp_path / "flight"
    folder.mkdir()
    for index in range(6):
        cv2.imwrite(str(folder / f"photo_{index}.png"), colour_patches((48, 64), seed=index))
    return folder


class ListSink(Sink):
    """Keeps what it gets; fails where it is told to."""

    def __init__(self, failures=None):
        self.written, self.ended, self._failures = [], None, failures or {}

    def write(self, frame, result):
        if frame.name in self._failures:
            raise self._failures[frame.name]
        self.written.append(frame.name)

    def finish(self):
        self.ended = "finished"

    def abort(self):
        self.ended = "aborted"


class GeneratedSource(Source):
    """Frames from a function of the index; an exception it returns is raised."""

    def __init__(self, make, total):
        self.name, self.total, self._make = "generated", total, make

    def frames(self, *, on_error=None):
        for index in range(self.total):
            image = self._make(index)
            if isinstance(image, Exception):
                raise image
            yield Frame(image, index, f"frame_{index}")


def test_a_folder_becomes_a_folder_of_masks(segment, flight, tmp_path):
    counts = []
    with open_source(flight) as source:
        summary = run_job(source, segment, open_sink(tmp_path / "out"), progress=counts.append)
    assert (summary.done, summary.failed) == (6, ())
    assert counts == [1, 2, 3, 4, 5, 6]
    for index in range(6):
        expected = segment(colour_patches((48, 64), seed=index)).mask
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / f"photo_{index}.png"), expected)


def test_the_summary_adds_up(segment, flight, tmp_path):
    with open_source(flight) as source:
        summary = run_job(source, segment, open_sink(tmp_path / "out"))
    assert summary.fps == pytest.approx(6 / summary.wall_s)
    assert sum(summary.class_fractions.values()) == pytest.approx(1)
    assert list(summary.stage_ms) == [
        "decode",
        "preprocess",
        "infer",
        "blend",
        "postprocess",
        "write",
    ]
    content = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert (content["done"], content["failed"]) == (6, [])


def test_broken_files_are_named_and_the_others_done(segment, flight, tmp_path):
    (flight / "photo_1.png").write_bytes(b"")
    cv2.imwrite(str(flight / "photo_3.png"), np.zeros((8, 8, 4), np.uint8))
    cv2.imwrite(str(flight / "photo_4.png"), np.zeros((8, 8, 3), np.uint16))
    with open_source(flight) as source:
        summary = run_job(source, segment, open_sink(tmp_path / "out"))
    assert summary.done == 3
    assert {failure.name for failure in summary.failed} == {
        "photo_1.png",
        "photo_3.png",
        "photo_4.png",
    }
    reasons = {failure.name: failure.reason for failure in summary.failed}
    assert "empty" in reasons["photo_1.png"]
    assert "alpha" in reasons["photo_3.png"]
    assert "uint16" in reasons["photo_4.png"]
    assert len(images_in(tmp_path / "out")) == 3


def test_a_film_that_is_cut_off_gives_a_film_of_the_whole_frames(segment, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for index in range(20):
        writer.write(colour_patches((48, 64), seed=index))
    writer.release()
    data = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(data[: len(data) // 2])
    with open_source(tmp_path / "a.avi") as source:
        summary = run_job(source, segment, open_sink(tmp_path / "out.mp4", fps=source.fps))
    assert summary.done == len(frames_in(tmp_path / "out.mp4")) > 5
    (failure,) = summary.failed
    assert "cut off" in failure.reason


def test_a_result_that_does_not_fit_the_sink_is_one_failure(segment, flight):
    sink = ListSink({"photo_2": InputError("too large for this sink")})
    with open_source(flight) as source:
        summary = run_job(source, segment, sink)
    assert [failure.name for failure in summary.failed] == ["photo_2"]
    assert len(sink.written) == summary.done == 5
    assert sink.ended == "finished"


def test_a_sink_that_fails_ends_the_job_and_is_aborted(segment):
    sink = ListSink({"frame_3": SinkError("the disk is full")})
    source = GeneratedSource(lambda index: colour_patches((48, 64), seed=index), 500)
    with pytest.raises(SinkError, match="the disk is full") as caught:
        run_job(source, segment, sink)
    assert sink.ended == "aborted"
    assert sink.written == ["frame_0", "frame_1", "frame_2"]
    origin = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert origin.name == "write"


def test_a_source_that_fails_ends_the_job_after_the_frames_before(segment):
    def make(index):
        return SourceError("the card is gone") if index == 3 else colour_patches((48, 64))

    sink = ListSink()
    with pytest.raises(SourceError, match="the card is gone"):
        run_job(GeneratedSource(make, 10), segment, sink)
    assert sink.ended == "aborted"


def test_a_bug_in_a_thread_is_raised_as_it_is(segment):
    def make(index):
        return ZeroDivisionError("a bug") if index == 2 else colour_patches((48, 64))

    with pytest.raises(ZeroDivisionError, match="a bug"):
        run_job(GeneratedSource(make, 10), segment, ListSink())


def test_a_network_that_fails_ends_the_job(network):
    segmenter = Segmenter(network, backend="onnxruntime")
    segmenter.close()
    sink = ListSink()
    with pytest.raises(BackendError, match="closed"):
        run_job(GeneratedSource(lambda _: colour_patches((48, 64)), 10), segmenter, sink)
    assert (sink.written, sink.ended) == ([], "aborted")


def test_an_interrupt_ends_the_job(segment):
    class Interrupted(GeneratedSource):
        def frames(self, *, on_error=None):
            for frame in super().frames():
                yield frame
                if frame.index == 2:
                    raise KeyboardInterrupt

    sink = ListSink()
    with pytest.raises(KeyboardInterrupt):
        run_job(Interrupted(lambda _: colour_patches((48, 64)), 100), segment, sink)
    assert sink.ended == "aborted"


@pytest.mark.real_data
def test_a_real_flight(segment, real_data, tmp_path):
    with open_source(str(real_data / "video" / "frames_brighton_beach" / "DJI_001*.jpg")) as source:
        summary = run_job(source, segment, open_sink(tmp_path / "out"))
    assert (summary.done, summary.failed) == (2, ())
    assert [mask.shape for mask in images_in(tmp_path / "out")] == [(1125, 2000, 1)] * 2
