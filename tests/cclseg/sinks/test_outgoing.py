"""Video to other machines: a real receiver, a real server, and both gone."""

import dataclasses
import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from contracts import item
from leftovers import no_new_threads
from streaming import PATIENCE_S, RtspServer, free_port, require_gstreamer, until

from cclseg import open_sink, open_source
from cclseg.errors import InputError, SinkError
from cclseg.gstreamer import has_element

require_gstreamer()

needs_rtsp = pytest.mark.skipif(
    not has_element("rtspclientsink"), reason="gstreamer1.0-rtsp is not installed"
)


@pytest.fixture(autouse=True)
def _no_thread_stays_behind():
    with no_new_threads():
        yield


class Receiver:
    """Frames of a source, taken in a thread."""

    def __init__(self, text):
        self.frames = []
        self._source = open_source(text)
        self._thread = threading.Thread(target=self._take)

    def _take(self):
        for frame in self._source:
            self.frames.append(frame.image)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._source.close()
        self._thread.join()


def send_until(sink, condition, *items):
    """Writes the same results again and again, at the pace of a camera."""
    number = 0

    def sent():
        nonlocal number
        sink.write(*items[number % len(items)])
        number += 1
        return condition()

    until(sent, every_s=0.02)


def pictures_in(folder):
    return sorted(folder.glob("*.png"))


class TestRtp:
    def test_a_receiver_sees_the_overlays(self):
        port = free_port(socket.SOCK_DGRAM)
        frame, result = item(0)
        with Receiver(f"rtp://127.0.0.1:{port}") as receiver:
            with open_sink(f"rtp://127.0.0.1:{port}", fps=5) as sink:
                send_until(sink, lambda: len(receiver.frames) >= 10, (frame, result))
            assert sink.encoder.startswith("H.264 by ")
            assert sink.target == f"rtp://127.0.0.1:{port}"
        drawn = result.overlay(frame.image).astype(float)
        assert np.abs(receiver.frames[9] - drawn).mean() < 20  # lossy, but the same picture

    def test_other_sizes_are_fitted_into_the_first_made_even(self):
        port = free_port(socket.SOCK_DGRAM)
        items = [item(0, size_hw=(31, 97)), item(1, size_hw=(96, 128))]
        with (
            Receiver(f"rtp://127.0.0.1:{port}") as receiver,
            open_sink(f"rtp://127.0.0.1:{port}", fps=5) as sink,
        ):
            send_until(sink, lambda: len(receiver.frames) >= 10, *items)
        assert {frame.shape for frame in receiver.frames} == {(32, 98, 3)}

    def test_nobody_has_to_listen_and_no_descriptor_stays_open(self):
        files = []
        for _ in range(3):
            with open_sink(f"rtp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}") as sink:
                for index in range(20):
                    sink.write(*item(index))
            files.append(len(list(Path("/proc/self/fd").iterdir())))
        assert files[2] <= files[0]


@needs_rtsp
class TestRtsp:
    def test_a_server_that_is_killed_is_found_again(self, tmp_path, caplog):
        taken = (tmp_path / "first", tmp_path / "second")
        for folder in taken:
            folder.mkdir()
        server = RtspServer(folder=taken[0])
        with server, open_sink(server.taken_url, fps=5) as sink:
            send_until(sink, lambda: len(pictures_in(taken[0])) >= 5, item(0))
            server.kill()
            send_until(sink, lambda: "next attempt in" in caplog.text, item(0))
            again = RtspServer(folder=taken[1], port=server.port)
            with again:
                send_until(sink, lambda: len(pictures_in(taken[1])) >= 5, item(1))
        frame, result = item(0)
        drawn = result.overlay(frame.image).astype(float)
        picture = cv2.imread(str(pictures_in(taken[0])[-2]))
        assert np.abs(picture - drawn).mean() < 20

    def test_a_server_that_hangs_holds_nothing_up(self, tmp_path):
        frame, result = item(0, size_hw=(240, 320))
        noise = np.random.default_rng(0)
        with RtspServer(folder=tmp_path) as server, open_sink(server.taken_url) as sink:
            send_until(sink, lambda: len(pictures_in(tmp_path)) >= 3, (frame, result))
            server.freeze()
            while sink.dropped < 100:  # however much the buffers on the way take
                image = noise.integers(0, 256, frame.image.shape, np.uint8)
                sink.write(dataclasses.replace(frame, image=image), result)
            server.kill()

    def test_an_end_without_a_server_comes_soon_and_is_told(self, caplog):
        with open_sink(f"rtsp://127.0.0.1:{free_port()}/taken") as sink:
            send_until(sink, lambda: "next attempt in" in caplog.text, item(0))
        assert "pictures were not sent" in caplog.text

    def test_an_abort_ends_it_too(self, tmp_path):
        with RtspServer(folder=tmp_path) as server:
            sink = open_sink(server.taken_url)
            send_until(sink, lambda: len(pictures_in(tmp_path)) >= 1, item(0))
            sink.abort()


def test_an_unused_one_starts_nothing():
    with open_sink("rtp://127.0.0.1:9"):
        pass


def test_masks_do_not_go_by_video():
    with pytest.raises(InputError, match="carries overlay, not masks"):
        open_sink("rtp://127.0.0.1:9", kind="masks")


def test_without_gstreamer_it_is_refused_before_any_frame(monkeypatch):
    monkeypatch.setattr("cclseg.sinks.outgoing.has_element", lambda name: False)
    with pytest.raises(SinkError, match="apt install gstreamer"):
        open_sink("rtp://127.0.0.1:9")


def test_the_program_sends_too(network, tmp_path):
    port = free_port(socket.SOCK_DGRAM)
    camera = "gst:videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=20/1"
    command = [sys.executable, "-m", "cclseg", "predict", camera, "-m", str(network)]
    command += ["--backend", "onnxruntime", "-o", f"rtp://127.0.0.1:{port}", "--json", "f.json"]
    with Receiver(f"rtp://127.0.0.1:{port}") as receiver:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        until(lambda: len(receiver.frames) >= 5)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["output"] == f"rtp://127.0.0.1:{port}"
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"]
