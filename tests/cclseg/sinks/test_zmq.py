"""Results to other processes, which read, stall, come late, and send nonsense."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zmq", reason="pyzmq is not installed")

from contracts import item
from hypothesis import given
from hypothesis import strategies as st
from leftovers import no_new_threads
from streaming import PATIENCE_S, free_port, until

from cclseg import open_sink
from cclseg.errors import InputError, SinkError, SourceError
from cclseg.pose import Camera, Pose
from cclseg.result import Segmentation
from cclseg.sinks.zmq import read_results, received

READER = """
import hashlib, json, sys
from cclseg.sinks.zmq import read_results

address, stream = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
for out in read_results(address, stream=stream, timeout_s=60):
    digest = hashlib.sha256(out.mask.tobytes()).hexdigest()
    print(json.dumps([out.header, digest, out.mask.dtype.name]), flush=True)
"""


@pytest.fixture
def address():
    return f"tcp://127.0.0.1:{free_port()}"


class Reader:
    """Another process that reads results."""

    def __init__(self, address, *stream):
        command = [sys.executable, "-c", READER, address, *stream]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.lines = []
        self._thread = threading.Thread(target=self._read)

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self._thread.join()
        self.process.communicate()


def publish_until(sink, condition, *items):
    """Publishes the same results again and again; who subscribes late gets later ones."""
    number = 0

    def published():
        nonlocal number
        sink.write(*items[number % len(items)])
        number += 1
        return condition()

    until(published)
    return number


def digest_of(result):
    return hashlib.sha256(result.mask.tobytes()).hexdigest()


class TestAcrossProcesses:
    def test_masks_and_figures_arrive_as_they_are(self, address):
        frame, result = item(3, size_hw=(31, 97))
        pose, camera = Pose(46.8, -91.9, height_m=40.1), Camera(1000.0, (31, 97), "DJI")
        frame = dataclasses.replace(frame, pose=pose, camera=camera, timestamp_s=1.5)
        result.age_ms = 12.25
        with open_sink(f"zmq:{address}") as sink, Reader(address) as reader:
            publish_until(sink, lambda: len(reader.lines) >= 3, (frame, result))
        header, digest, dtype = reader.lines[0]
        assert (digest, dtype) == (digest_of(result), "uint8")
        assert (header["version"], header["shape"], header["dtype"]) == (1, [31, 97], "uint8")
        assert header["class_names"] == list(result.class_names)
        assert (header["frame"], header["index"]) == ("frame_3", 3)
        assert (header["timestamp_s"], header["age_ms"]) == (1.5, 12.25)
        assert header["fractions"] == pytest.approx(result.fractions(), abs=1e-6)
        assert Pose(**header["pose"]) == pose
        assert header["camera"]["focal_length_px"] == 1000
        numbers = [header["number"] for header, *_ in reader.lines]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    def test_more_than_255_classes(self, address):
        frame, result = item(0)
        wide = Segmentation(result.mask.astype(np.uint16) * 300, None, result._spec)
        with open_sink(f"zmq:{address}") as sink, Reader(address) as reader:
            publish_until(sink, lambda: reader.lines, (frame, wide))
        assert reader.lines[0][1:] == [digest_of(wide), "uint16"]

    def test_streams_are_told_apart(self, address):
        items = [
            (dataclasses.replace(frame, stream=name), result)
            for name, (frame, result) in zip(("left", "left2"), (item(0), item(1)), strict=True)
        ]
        with (
            open_sink(f"zmq:{address}") as sink,
            Reader(address, "left") as one,
            Reader(address) as both,
        ):
            publish_until(sink, lambda: min(len(one.lines), len(both.lines)) >= 4, *items)
        assert {header["stream"] for header, *_ in one.lines} == {"left"}
        assert {header["stream"] for header, *_ in both.lines} == {"left", "left2"}

    def test_a_reader_that_stands_still_holds_nothing_up_and_sees_what_it_missed(self, address):
        small, large = item(0), item(1, size_hw=(720, 1280))
        with open_sink(f"zmq:{address}") as sink, Reader(address) as reader:
            publish_until(sink, lambda: reader.lines, small)
            os.kill(reader.process.pid, signal.SIGSTOP)
            before_mb = resident_mb()
            for _ in range(300):
                sink.write(*large)  # 276 MB in all
            assert resident_mb() - before_mb < 60
            os.kill(reader.process.pid, signal.SIGCONT)
            known = len(reader.lines)
            publish_until(sink, lambda: len(reader.lines) > known + 50, small)
        numbers = [header["number"] for header, *_ in reader.lines]
        assert numbers == sorted(numbers)
        assert numbers[-1] - numbers[0] > len(numbers) + 200

    def test_a_publisher_that_starts_again_is_found_again(self, address):
        with Reader(address) as reader:
            for _ in range(2):
                known = len(reader.lines)
                with open_sink(f"zmq:{address}") as sink:
                    publish_until(sink, lambda at=known: len(reader.lines) > at + 3, item(0))
        assert [header["number"] for header, *_ in reader.lines].count(0) <= 2

    def test_a_reader_that_dies_is_nobody_s_loss(self, address):
        with open_sink(f"zmq:{address}") as sink, Reader(address) as other:
            with Reader(address) as reader:
                publish_until(sink, lambda: reader.lines, item(0))
            known = len(other.lines)
            publish_until(sink, lambda: len(other.lines) > known + 5, item(0))

    def test_the_program_publishes_too(self, address, network, tmp_path):
        camera = "realtime:virtual:frames=2000,size=64x48,interval_s=0.02"
        command = [sys.executable, "-m", "cclseg", "predict", camera, "-m", str(network)]
        command += ["--backend", "onnxruntime", "-o", f"zmq:{address}"]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with Reader(address) as reader:
            until(lambda: len(reader.lines) >= 3)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
        assert f"-> zmq:{address}" in out
        assert reader.lines[0][0]["shape"] == [48, 64]
        assert list(tmp_path.iterdir()) == []


def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_a_file_may_be_the_address(tmp_path):
    address = f"ipc://{tmp_path}/results"
    with open_sink(f"zmq:{address}") as sink, Reader(address) as reader:
        publish_until(sink, lambda: reader.lines, item(0))


def test_readers_wait_as_long_as_they_are_told(address):
    assert list(read_results(address, timeout_s=0.05)) == []


def test_nothing_stays_open(address):
    files = []
    with no_new_threads():
        for end in ("finish", "abort", "finish"):
            sink = open_sink(f"zmq:{address}")
            sink.write(*item(0))
            getattr(sink, end)()
            list(read_results(address, timeout_s=0.01))
            files.append(len(list(Path("/proc/self/fd").iterdir())))
    assert files[2] <= files[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zmq:", "is no address; expected zmq:tcp://127.0.0.1:PORT"),
        ("zmq:tcp://127.0.0.1", "is no address"),
        ("zmq:tcp://127.0.0.1:99999", "is no address"),
        ("zmq:udp://127.0.0.1:5556", "is no address"),
        ("zmq:tcp://localhost:5556", "'localhost' is no address; expected one in numbers"),
        ("zmp://127.0.0.1:5556", "nothing is sent by 'zmp:'; did you mean .*'zmq'"),
    ],
)
def test_what_is_no_address_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        open_sink(text)


def test_overlays_do_not_go_this_way(address):
    with pytest.raises(InputError, match="carries masks, not overlay"):
        open_sink(f"zmq:{address}", kind="overlay")


def test_an_address_in_use_is_a_sink_error(address):
    with open_sink(f"zmq:{address}"), pytest.raises(SinkError, match=r"cannot publish at .*in use"):
        open_sink(f"zmq:{address}")


GOOD = [b"/", b'{"version": 1, "shape": [2, 3], "dtype": "uint8"}', bytes(6)]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (GOOD[:2], "what came is no result"),
        ([b"/", b"{", bytes(6)], "what came is no result"),
        ([b"/", b"[1]", bytes(6)], "what came is no result"),
        ([b"/", b"{}", bytes(6)], "'version'"),
        ([b"/", GOOD[1].replace(b"1", b"2"), bytes(6)], "version 2 came; this reader knows 1"),
        ([b"/", GOOD[1].replace(b"uint8", b"object"), bytes(6)], "class ids of type object"),
        ([b"/", GOOD[1].replace(b"[2, 3]", b"[2, 4]"), bytes(6)], "cannot reshape"),
        ([b"/", GOOD[1].replace(b"[2, 3]", b"6"), bytes(6)], "what came is no result"),
        ([b"/", GOOD[1].replace(b"uint8", b"uint16"), bytes(11)], "what came is no result"),
    ],
)
def test_nonsense_is_a_source_error(parts, message):
    assert received(GOOD).mask.shape == (2, 3)
    with pytest.raises(SourceError, match=message):
        received(parts)


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_nonsense_is_a_source_error(parts):
    with pytest.raises(SourceError):
        received(parts)
