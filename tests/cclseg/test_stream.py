"""Streams: order, policies and their counts, fairness, ends and errors, and nothing left behind."""

import gc
import logging
import os
import threading
import time
import traceback

import numpy as np
import pytest
from leftovers import no_new_threads
from networks import colour_patches

from cclseg import Segmenter
from cclseg.errors import BackendError, InputError, SourceError
from cclseg.frame import Frame
from cclseg.packing import Network
from cclseg.sources import Source
from cclseg.sources.arrays import ArraySource
from cclseg.stream import Stream

PATIENCE_S = 30


@pytest.fixture(scope="module")
def segment(network):
    with Segmenter(network, backend="onnxruntime", threads=1) as segmenter:
        yield segmenter


@pytest.fixture(autouse=True)
def _no_thread_stays_behind(segment):
    with no_new_threads():
        yield


def images(count, size_hw=(24, 32)):
    return [colour_patches(size_hw, seed=index) for index in range(count)]


class Camera(Source):
    """Gives frames without end until it is interrupted; what it gave is counted."""

    def __init__(self, *, live=True, size_hw=(24, 32)):
        self.name, self.live, self.given = "camera", live, 0
        self._image = colour_patches(size_hw)
        self._off = threading.Event()

    def frames(self, *, on_error=None):
        while not self._off.wait(0.0005):
            yield Frame(self._image, self.given, f"frame_{self.given}")
            self.given += 1

    def interrupt(self):
        self._off.set()


def until(condition):
    """Waits for something that another thread brings about."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def assert_adds_up(stats):
    assert stats.captured == stats.delivered + stats.dropped + stats.superseded + stats.failed


class TestPolicies:
    def test_files_are_computed_whole_and_in_order(self, segment):
        frames = images(30)
        with segment.stream(frames) as stream:
            results = list(stream)
        for index, out in enumerate(results):
            assert out.frame.index == index
            np.testing.assert_array_equal(out.mask, segment(frames[index]).mask)
        assert stream.stats().delivered == 30
        assert_adds_up(stream.stats())

    def test_with_all_a_slow_caller_holds_the_source_back(self, segment):
        camera = Camera()
        with segment.stream(camera, policy="all") as stream:
            first = next(stream)
            until(lambda: camera.given > 3)
            time.sleep(0.2)
            given = camera.given
            time.sleep(0.1)
            assert camera.given == given < 20
            assert [first.frame.index, *(next(stream).frame.index for _ in range(40))] == list(
                range(41)
            )
        assert (stream.stats().dropped, stream.stats().superseded) == (0, 0)

    def test_with_latest_the_newest_result_is_handed_out_and_the_rest_counted(self, segment):
        taken = threading.Event()

        def burst():
            yield images(1)[0]
            taken.wait(PATIENCE_S)
            yield from images(99)

        source = ArraySource(burst(), live=True)
        with segment.stream(source) as stream:  # latest is the default of live sources
            stats = stream.stats
            assert next(stream).frame.index == 0
            taken.set()
            until(lambda: stats().dropped + stats().superseded + stats().delivered == 99)
            assert next(stream).frame.index == 99
            assert next(stream, None) is None
        assert stats().captured == 100
        assert_adds_up(stats())

    def test_with_drop_oldest_a_short_queue_keeps_the_newest(self, segment):
        held = threading.Event()

        def submit(tiles, out):
            held.wait(PATIENCE_S)
            return segment._network.submit(tiles, out)

        source = ArraySource(images(100), live=True)
        stream = Stream(Network(segment.spec, submit, 1), {"": source}, policy="drop-oldest")
        with stream:
            starter = threading.Thread(
                target=lambda: (until(lambda: stream.stats().captured == 100), held.set())
            )
            starter.start()
            indices = [out.frame.index for out in stream]
            starter.join()
        assert indices == sorted(indices)
        assert indices[-8:] == list(range(92, 100))
        assert 8 <= len(indices) < 100
        assert_adds_up(stream.stats())

    def test_behind_a_caller_that_is_always_too_slow_nothing_piles_up(self, segment):
        camera = Camera()
        with segment.stream(camera) as stream:
            next(stream)
            for _ in range(5):
                given = camera.given
                until(lambda at=given: camera.given > at + 200)
                out = next(stream)
                # A backlog would give frame 1, 2, 3 and so on.
                assert out.frame.index > given
            assert stream.stats().dropped + stream.stats().superseded > 500


class TestAge:
    def test_it_counts_from_the_capture_as_the_source_tells_it(self, segment):
        class Delayed(Source):
            name, live = "delayed", True

            def frames(self, *, on_error=None):
                seen_ns = time.monotonic_ns() - 5_000_000_000
                yield Frame(colour_patches((24, 32)), 0, "frame_0", captured_ns=seen_ns)

        with segment.stream(Delayed()) as stream:
            (out,) = stream
        assert out.age_ms > 5000
        assert stream.stats().age_ms["p50"] == out.age_ms

    def test_it_counts_from_the_arrival_elsewhere(self, segment):
        with segment.stream(images(3)) as stream:
            results = list(stream)
        assert all(out.age_ms > 0 for out in results)
        assert all(out.frame.captured_ns <= time.monotonic_ns() for out in results)

    def test_without_a_stream_there_is_none(self, segment):
        assert segment(images(1)[0]).age_ms is None


class TestSeveralSources:
    def test_they_are_told_apart_and_each_is_in_order(self, segment):
        with segment.stream({"left": images(12), "right": images(7)}) as stream:
            seen = [(out.frame.stream, out.frame.index) for out in stream]
        assert [index for name, index in seen if name == "left"] == list(range(12))
        assert [index for name, index in seen if name == "right"] == list(range(7))
        assert stream.stats("left").delivered == 12
        assert stream.stats().delivered == 19
        with pytest.raises(InputError, match="did you mean 'right'"):
            stream.stats("rigt")

    def test_none_starves(self, segment):
        cameras = {"large": Camera(live=False, size_hw=(90, 120)), "small": Camera(live=False)}
        with segment.stream(cameras) as stream:
            names = [next(stream).frame.stream for _ in range(60)]
        assert 20 < names.count("large") < 40

    def test_tiles_of_waiting_frames_share_a_call(self, segment):
        calls, held = [], threading.Event()

        def submit(tiles, out):
            calls.append(len(tiles))
            held.wait(PATIENCE_S)
            return segment._network.submit(tiles, out)

        sources = {"a": ArraySource(images(6)), "b": ArraySource(images(6))}
        with Stream(Network(segment.spec, submit, 4), sources) as stream:
            starter = threading.Thread(
                target=lambda: (until(lambda: stream.stats().captured > 8), held.set())
            )
            starter.start()
            results = list(stream)
            starter.join()
        assert sum(calls) == 12
        assert max(calls) > 1
        for out in results:
            expected = segment(colour_patches((24, 32), seed=out.frame.index)).mask
            np.testing.assert_array_equal(out.mask, expected)

    def test_one_that_dies_leaves_the_others_running_where_it_is_heard(self, segment):
        class Dying(Source):
            name, live = "dying", False

            def frames(self, *, on_error=None):
                yield Frame(colour_patches((24, 32)), 0, "frame_0")
                on_error("frame_1", SourceError("the card is gone"))

        heard = []
        with segment.stream(
            {"dying": Dying(), "well": images(20)}, on_error=lambda *one: heard.append(one)
        ) as stream:
            seen = [out.frame.stream for out in stream]
        assert (seen.count("dying"), seen.count("well")) == (1, 20)
        assert [name for name, _ in heard] == ["frame_1"]
        assert stream.stats("dying").failed == 1


class TestEnds:
    def test_stop_hands_out_what_is_on_its_way(self, segment):
        camera = Camera(live=False)
        with segment.stream(camera) as stream:
            before = [next(stream).frame.index for _ in range(5)]
            stream.stop()
            after = [out.frame.index for out in stream]
        assert before + after == list(range(len(before) + len(after)))
        assert_adds_up(stream.stats())

    def test_a_stream_that_is_dropped_ends_its_threads(self, segment):
        for out in segment.stream(Camera(live=False)):
            assert out.frame.index == 0
            break
        gc.collect()
        assert not [thread for thread in threading.enumerate() if "cclseg" in thread.name]

    def test_an_unused_one_starts_no_thread(self, segment):
        with no_new_threads():
            stream = segment.stream(images(3))
        stream.close()
        assert list(stream) == []

    def test_a_closed_one_is_over(self, segment):
        stream = segment.stream(Camera())
        next(stream)
        stream.close()
        stream.close()
        assert list(stream) == []

    def test_the_segmenter_may_be_called_while_it_streams(self, segment):
        frames = images(20)
        masks = [segment(frame).mask for frame in frames]
        for out in segment.stream(frames):
            again = segment(frames[out.frame.index])
            np.testing.assert_array_equal(again.mask, masks[out.frame.index])
            np.testing.assert_array_equal(out.mask, masks[out.frame.index])

    def test_a_thousand_streams_leave_no_descriptor_and_no_memory(self, segment):
        frames = images(2)
        for _ in range(20):
            list(segment.stream(frames))
        gc.collect()
        files, objects = len(os.listdir("/proc/self/fd")), len(gc.get_objects())  # noqa: PTH208
        for index in range(1000):
            stream = segment.stream(frames)
            if index % 3:
                next(stream)
            stream.close()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == files  # noqa: PTH208
        assert len(gc.get_objects()) - objects < 200

    def test_a_source_that_hangs_is_left_behind_with_a_warning(self, segment, caplog, monkeypatch):
        monkeypatch.setattr("cclseg.stages._LEAVE_SOURCE_AFTER_S", 0.05)
        release = threading.Event()

        def hanging():
            yield images(1)[0]
            release.wait(PATIENCE_S)

        with caplog.at_level(logging.WARNING), segment.stream(hanging()) as stream:
            next(stream)
        assert "waits for a frame and cannot be ended" in caplog.text
        release.set()
        until(lambda: not any("cclseg" in thread.name for thread in threading.enumerate()))


class TestErrors:
    def test_an_error_of_the_source_comes_behind_its_frames_and_shows_its_origin(self, segment):
        def failing():
            yield from images(3)
            raise ZeroDivisionError("a bug in the driver")

        stream = segment.stream(failing())
        assert [next(stream).frame.index for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ZeroDivisionError, match="a bug in the driver") as caught:
            next(stream)
        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "failing"

    def test_a_frame_that_does_not_fit_is_raised_in_its_place(self, segment):
        frames = [*images(2), np.zeros((8, 8, 4), np.uint8), *images(2)]
        stream = segment.stream(frames)
        assert [next(stream).frame.index for _ in range(2)] == [0, 1]
        with pytest.raises(InputError, match="alpha channel"):
            next(stream)
        assert list(stream) == []

    def test_or_heard_and_left_out(self, segment):
        frames = [*images(2), np.zeros((8, 8, 4), np.uint8), "no image", *images(2)]
        heard = []
        with segment.stream(frames, on_error=lambda *one: heard.append(one)) as stream:
            assert [out.frame.index for out in stream] == [0, 1, 4, 5]
        assert sorted(name for name, _ in heard) == ["frame_000002", "frame_000003"]
        assert stream.stats().failed == 2

    def test_a_network_that_fails_ends_the_stream_with_its_own_error(self, network):
        segmenter = Segmenter(network, backend="onnxruntime", threads=1)
        stream = segmenter.stream(Camera(live=False))
        next(stream)
        segmenter.close()
        with pytest.raises(BackendError, match="closed") as caught:
            for _ in stream:
                pass
        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "_infer"

    def test_a_bug_in_a_stage_ends_it_even_when_a_source_has_ended(self, segment):
        calls = []

        def submit(tiles, out):
            calls.append(len(tiles))
            if len(calls) > 10:
                raise MemoryError("no more")
            return segment._network.submit(tiles, out)

        sources = {"short": ArraySource(images(1)), "long": Camera(live=False)}
        stream = Stream(Network(segment.spec, submit, 1), sources)
        with pytest.raises(MemoryError, match="no more"):
            list(stream)

    @pytest.mark.parametrize("source", [np.zeros((8, 8, 3), np.uint8), 7, None])
    def test_what_is_no_source_is_refused(self, segment, source):
        with pytest.raises(InputError, match="expected a path, a text or an iterable"):
            segment.stream(source)
