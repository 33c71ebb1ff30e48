"""What cameras and links do, with real pipelines, servers and signals: streams go on or say why."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from contracts import frames_in
from leftovers import no_new_threads
from networks import colour_patches
from streaming import PATIENCE_S, Link, RtspServer, free_port, require_gstreamer, until

from cclseg import Segmenter, open_source
from cclseg.errors import SourceError
from cclseg.image_files import read_mask
from cclseg.sources.gst_process import GstProcess
from cclseg.sources.live import LiveSource, Patience

require_gstreamer()

QUICK = Patience(stall_s=0.4, lost_s=1.2, first_retry_s=0.1, longest_retry_s=0.4)
SMALL = "video/x-raw,width=64,height=48,framerate=50/1"


@pytest.fixture(scope="module")
def segment(network):
    with Segmenter(network, backend="onnxruntime", threads=1) as segmenter:
        yield segmenter


@pytest.fixture(autouse=True)
def _nothing_stays_behind(segment):
    children = set(children_of(os.getpid()))
    with no_new_threads():
        yield
    assert set(children_of(os.getpid())) <= children


def children_of(pid):
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):  # a thread has ended: its children moved
            return [
                int(child)
                for task in Path(f"/proc/{pid}/task").iterdir()
                for child in (task / "children").read_text().split()
            ]
    raise AssertionError(f"process {pid} is gone, or its threads come and go all the time")


class Watched:
    """A stream whose results are taken by a thread, and the states of its source."""

    def __init__(self, segment, text, *, patience=QUICK):
        self.states, self.taken = [], 0
        self._source = open_source(
            text, on_event=lambda event: self.states.append(event.state), patience=patience
        )
        self._stream = segment.stream(self._source)
        self._thread = threading.Thread(target=self._take)

    def _take(self):
        for _ in self._stream:
            self.taken += 1

    def runs_on(self):
        """Waits until ten more results have come."""
        target = self.taken + 10
        until(lambda: self.taken >= target)

    def becomes(self, state):
        until(lambda: state in self.states)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stream.stop()
        self._thread.join()
        self._stream.close()


class TestRtsp:
    def test_a_server_that_is_killed_and_started_again_is_found_again(self, segment):
        with RtspServer() as server, Watched(segment, server.url) as stream:
            stream.runs_on()
            server.kill()
            stream.becomes("lost")
            server.start()
            stream.becomes("restored")
            stream.runs_on()
        assert stream.states[:3] == ["connecting", "live", "lost"]
        assert stream.states[-1] == "restored"

    def test_frames_that_stall_are_told_and_go_on(self, segment):
        patience = Patience(stall_s=0.4, lost_s=60, first_retry_s=0.1)
        with RtspServer() as server, Watched(segment, server.url, patience=patience) as stream:
            stream.runs_on()
            server.freeze()
            stream.becomes("stalled")
            server.thaw()
            stream.becomes("restored")
            stream.runs_on()
        assert stream.states == ["connecting", "live", "stalled", "restored"]

    def test_a_server_that_hangs_for_good_is_given_up_and_tried_again(self, segment):
        with RtspServer() as server, Watched(segment, server.url) as stream:
            stream.runs_on()
            server.freeze()
            stream.becomes("lost")
            server.kill()
            server.start()
            stream.becomes("restored")
            stream.runs_on()
        assert "stalled" in stream.states

    def test_a_link_that_is_cut_and_mended(self, segment):
        with (
            Link() as link,
            RtspServer(address=link.theirs, within=link.within) as server,
            Watched(segment, server.url) as stream,
        ):
            stream.runs_on()
            link.cut()
            stream.becomes("lost")
            until(lambda: stream.states.count("connecting") >= 2)
            link.mend()
            stream.becomes("restored")
            stream.runs_on()
        assert "stalled" in stream.states

    @pytest.mark.slow
    def test_a_link_that_is_cut_for_half_a_minute(self, segment):
        """With the patience that is the default."""
        with (
            Link() as link,
            RtspServer(address=link.theirs, within=link.within) as server,
            Watched(segment, server.url, patience=None) as stream,
        ):
            stream.runs_on()
            link.cut()
            time.sleep(30)
            assert stream.states[:4] == ["connecting", "live", "stalled", "lost"]
            link.mend()
            stream.becomes("restored")
            stream.runs_on()

    def test_a_camera_that_is_switched_on_later(self, segment):
        server = RtspServer()
        with Watched(segment, server.url) as stream:
            stream.becomes("lost")
            with server:
                stream.runs_on()
        assert stream.states.index("lost") < stream.states.index("live")

    def test_pictures_lost_on_the_way_do_not_end_it(self, segment):
        with RtspServer(loss=0.3) as server, Watched(segment, server.url) as stream:
            for _ in range(5):
                stream.runs_on()
        assert stream.states[:2] == ["connecting", "live"]

    def test_it_also_comes_by_udp(self, segment):
        with RtspServer() as server, Watched(segment, f"{server.url}#transport=udp") as stream:
            stream.runs_on()

    def test_of_two_streams_one_dies_and_the_other_does_not_notice(self, segment):
        seen = []
        with RtspServer() as first, RtspServer() as second:
            streams = {
                name: open_source(server.url, patience=QUICK)
                for name, server in (("dies", first), ("lives", second))
            }
            with segment.stream(streams) as stream:
                while min(seen.count("dies"), seen.count("lives")) < 5:
                    seen.append(next(stream).frame.stream)
                first.kill()
                after = [next(stream).frame.stream for _ in range(60)]
        assert after.count("lives") > 40
        assert stream.stats("lives").delivered > stream.stats("dies").delivered


@pytest.mark.parametrize(
    ("scheme", "packets"),
    [("rtp", "rtph264pay config-interval=1 pt=96"), ("udp", "mpegtsmux")],
)
def test_video_by_udp_whose_sender_stops_and_goes_on(segment, scheme, packets):
    port = free_port(socket.SOCK_DGRAM)
    send = f"videotestsrc is-live=true ! {SMALL} ! x264enc tune=zerolatency key-int-max=10"
    sink = f"udpsink host=127.0.0.1 port={port}"
    words = f"gst-launch-1.0 -q {send} ! {packets} ! {sink}".split()
    with Watched(segment, f"{scheme}://127.0.0.1:{port}") as stream:
        for _ in range(2):
            sender = subprocess.Popen(words)
            stream.runs_on()
            sender.kill()
            sender.wait()
            stream.becomes("stalled")
    assert "restored" in stream.states


class TestPipelines:
    def test_a_change_of_size_in_mid_stream(self, segment):
        text = (
            "gst:videotestsrc num-buffers=5 ! video/x-raw,width=64,height=48 ! c. "
            "videotestsrc num-buffers=5 ! video/x-raw,width=97,height=31 ! c. concat name=c"
        )
        with segment.stream(text, policy="all") as stream:
            shapes = [out.mask.shape for out in stream]
        assert shapes == [(48, 64)] * 5 + [(31, 97)] * 5

    def test_corrupt_h264_gives_frames_and_no_error(self, segment, tmp_path):
        encode = f"videotestsrc num-buffers=100 pattern=ball ! {SMALL} ! x264enc key-int-max=10"
        whole = tmp_path / "whole.h264"
        subprocess.run(
            ["gst-launch-1.0", "-q", *encode.split(), "!", "filesink", f"location={whole}"],
            check=True,
        )
        data = bytearray(whole.read_bytes())
        random = np.random.default_rng(0)
        for place in random.integers(len(data) // 10, len(data), 60):
            data[place] ^= int(random.integers(1, 256))
        (tmp_path / "corrupt.h264").write_bytes(data)
        decode = f"gst:filesrc location={tmp_path}/corrupt.h264 ! h264parse ! avdec_h264"
        with segment.stream(decode, policy="all") as stream:
            shapes = {out.mask.shape for out in stream}
        assert shapes == {(48, 64)}
        assert 20 < stream.stats().delivered <= 100

    def test_a_camera_that_is_unplugged_and_plugged_in_again(self, segment, tmp_path):
        """A file stands in for the device: it gives some frames, vanishes and comes back."""
        device, states = tmp_path / "video0", []
        encode = f"videotestsrc num-buffers=20 ! {SMALL} ! jpegenc ! avimux"
        made = ["gst-launch-1.0", "-q", *encode.split(), "!", "filesink", f"location={device}"]
        subprocess.run(made, check=True)
        words = [
            *f"filesrc location={device} ! decodebin ! videoconvert".split(),
            *["!", "video/x-raw,format=BGR"],
        ]

        def hear(event):
            states.append((event.state, event.detail))
            losses = [state for state, _ in states].count("lost")
            if event.state == "lost" and losses == 1:
                device.rename(tmp_path / "unplugged")
            if event.state == "lost" and losses == 3:
                (tmp_path / "unplugged").rename(device)

        source = LiveSource(lambda: GstProcess(words), name="video0", patience=QUICK, on_event=hear)
        with segment.stream(source, policy="all") as stream:
            indices = [next(stream).frame.index for _ in range(40)]
        assert indices == list(range(40))
        assert any("No such file" in detail for state, detail in states if state == "lost")
        assert "restored" in [state for state, _ in states]

    def test_a_pipeline_that_crashes_is_started_again(self, segment):
        with Watched(segment, f"gst:videotestsrc is-live=true ! {SMALL}") as stream:
            stream.runs_on()
            for child in children_of(os.getpid()):
                os.kill(child, signal.SIGKILL)
            stream.becomes("restored")
            stream.runs_on()

    def test_the_last_frames_of_a_pipeline_that_ends_come_through(self, segment):
        with segment.stream(f"gst:videotestsrc num-buffers=60 ! {SMALL}", policy="all") as stream:
            results = list(stream)
        assert [out.frame.index for out in results] == list(range(60))
        times_s = [out.frame.timestamp_s for out in results]
        np.testing.assert_allclose(times_s, np.arange(60) / 50, atol=1e-6)

    def test_the_source_is_held_back_by_all_without_losing_a_frame(self, segment):
        text = f"gst:videotestsrc num-buffers=300 ! {SMALL}"
        with segment.stream(text, policy="all") as stream:
            assert [out.frame.index for out in stream] == list(range(300))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("gst:nosuchsource", "GStreamer has no element 'nosuchsource'"),
            ("gst:videotestsrc pattern=nothing", "this is no GStreamer pipeline"),
            ("gst:videotestsrc ! ! fakesink", "this is no GStreamer pipeline"),
            ("csi://0", "no element 'nvarguscamerasrc'.*on a Jetson"),
        ],
    )
    def test_what_can_never_work_is_said_at_once(self, segment, text, message):
        with pytest.raises(SourceError, match=message):
            list(segment.stream(text))

    def test_a_device_that_is_not_there_is_waited_for(self, segment):
        with Watched(segment, "v4l2://63") as stream:
            until(lambda: stream.states.count("lost") >= 2)
        assert stream.states[:4] == ["connecting", "lost", "connecting", "lost"]

    def test_many_openings_and_closings_leave_nothing(self, segment):
        text = f"gst:videotestsrc is-live=true ! {SMALL}"
        next(segment.stream(text))
        files = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(15):
            with segment.stream(text) as stream:
                next(stream)
        assert len(list(Path("/proc/self/fd").iterdir())) == files

    def test_no_pipeline_outlives_a_process_that_is_killed(self):
        code = (
            "import sys; from cclseg import open_source\n"
            f"frames = iter(open_source('gst:videotestsrc is-live=true ! {SMALL}'))\n"
            "next(frames); print('ready', flush=True); sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        children = children_of(process.pid)
        assert children
        process.kill()
        process.communicate()
        until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


class TestProgram:
    """The program ``cclseg predict`` on a camera that never ends."""

    @pytest.fixture
    def start(self, network, tmp_path):
        processes = []

        def start_on(source, *arguments):
            command = [sys.executable, "-m", "cclseg", "predict", source, "-m", str(network)]
            options = ["--backend", "onnxruntime", "--json", "figures.json", *map(str, arguments)]
            process = subprocess.Popen(
                [*command, *options], cwd=tmp_path, text=True, start_new_session=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            processes.append(process)
            return process

        yield start_on
        for process in processes:
            process.kill()
            process.communicate()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_under_load_writes_everything_and_is_success(self, start, tmp_path, number):
        camera = "gst:videotestsrc is-live=true ! video/x-raw,width=640,height=480,framerate=60/1"
        process = start(camera, "-o", "out.mp4")
        until(lambda: list(tmp_path.glob(".out.*")))
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, err.count("\n")) == (0, 1), err
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert len(frames_in(tmp_path / "out.mp4")) == figures["done"] > 0
        assert figures["stopped"]
        assert figures["age_ms"]["p50"] > 0
        assert f"{figures['done']} frame" in out
        assert not list(tmp_path.glob(".out.*"))

    def test_a_camera_that_is_lost_is_a_warning_and_the_job_goes_on(self, start, tmp_path):
        with RtspServer() as server:
            process = start(server.url, "-o", "masks")
            until(lambda: list(tmp_path.glob("masks/*.png")))
            server.kill()
            assert "127.0.0.1 is lost" in process.stderr.readline()
            before = len(list(tmp_path.glob("masks/*.png")))
            server.start()
            until(lambda: len(list(tmp_path.glob("masks/*.png"))) > before + 5)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert all(read_mask(path).shape == (120, 160) for path in tmp_path.glob("masks/*.png"))

    def test_a_disk_that_fills_up_ends_it_with_a_clear_error_and_whole_masks(self, start, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("cannot mount a small file system")
        try:
            process = start(f"gst:videotestsrc is-live=true ! {SMALL}", "-o", disk)
            _, err = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 1
            assert re.match(r"error: cannot write .*; free space or choose another place\n", err)
            masks = [path for path in disk.iterdir() if path.suffix == ".png"]
            assert all(read_mask(path).shape == (48, 64) for path in masks)
            assert not [path for path in disk.iterdir() if "partial" in path.name]
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def test_real_time_files_keep_their_pace_and_lose_frames_only_by_the_policy(segment):
    with segment.stream("realtime:virtual:frames=12,size=64x48,interval_s=0.05") as stream:
        results = list(stream)
    stats = stream.stats()
    assert stats.captured == 12 == stats.delivered + stats.dropped + stats.superseded
    first, last = results[0].frame, results[-1].frame
    waited_s = (last.captured_ns - first.captured_ns) / 1e9
    assert waited_s >= last.timestamp_s - first.timestamp_s - 1e-3


def test_real_time_is_for_what_has_times(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), colour_patches((8, 8)))
    with pytest.raises(SourceError, match="has no times to keep"):
        open_source(f"realtime:{tmp_path}")
