"""The faults: each function brings one about, once, and returns what is timed, in seconds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from _faulty_streams import (
    CAMERA,
    GIVE_UP_S,
    SMALL,
    Bench,
    Watched,
    children,
    launch,
    program,
    until,
)
from streaming import Link, RtspServer, free_port

from cclseg import open_sink, open_source
from cclseg.files import write_bytes
from cclseg.image_files import read_mask
from cclseg.sources.gst_process import GstProcess
from cclseg.sources.live import LiveSource

OUTAGE_S = 3.0
_LONG_OUTAGE_S = 30.0
_LOOKED_AT_S = 4.0


def server_killed(bench: Bench) -> float:
    """RTSP server killed, started again after 3 s."""
    with RtspServer() as server, Watched(bench.segment, server.url) as stream:
        stream.runs()
        server.kill()
        stream.becomes("lost")
        time.sleep(OUTAGE_S)
        server.start()
        return stream.next_after(time.monotonic())


def link_cut(bench: Bench) -> float:
    """Link to the server's network namespace cut for 30 s."""
    with (
        Link() as link,
        RtspServer(address=link.theirs, within=link.within) as server,
        Watched(bench.segment, server.url) as stream,
    ):
        stream.runs()
        link.cut()
        time.sleep(_LONG_OUTAGE_S)
        link.mend()
        return stream.next_after(time.monotonic())


def frames_stall(bench: Bench) -> float:
    """Frames stall for 3 s on a standing connection."""
    with RtspServer() as server, Watched(bench.segment, server.url) as stream:
        stream.runs()
        server.freeze()
        stream.becomes("stalled")
        time.sleep(OUTAGE_S - 2)
        server.thaw()
        return stream.next_after(time.monotonic())


def server_hangs(bench: Bench) -> float:
    """RTSP server hangs for good, is replaced once it is given up."""
    with RtspServer() as server, Watched(bench.segment, server.url) as stream:
        stream.runs()
        server.freeze()
        stream.becomes("lost")
        server.kill()
        server.start()
        return stream.next_after(time.monotonic())


def sender_stops(bench: Bench) -> float:
    """RTP sender stops for 3 s."""
    port = free_port(socket.SOCK_DGRAM)
    words = (
        f"gst-launch-1.0 -q videotestsrc is-live=true ! {SMALL} ! x264enc tune=zerolatency "
        "key-int-max=10 ! rtph264pay config-interval=1 pt=96 ! "
        f"udpsink host=127.0.0.1 port={port}"
    ).split()
    with Watched(bench.segment, f"rtp://127.0.0.1:{port}") as stream:
        for start_s in (0.0, time.monotonic()):
            sender = subprocess.Popen(words)
            sent_s = time.monotonic()
            try:
                recovery_s = stream.next_after(sent_s)
                stream.runs()
            finally:
                sender.kill()
                sender.wait()
            if not start_s:
                time.sleep(OUTAGE_S)
        return recovery_s


def pipeline_crashes(bench: Bench) -> float:
    """Decoder's process killed."""
    with Watched(bench.segment, CAMERA) as stream:
        stream.runs()
        for child in children():
            os.kill(child, signal.SIGKILL)
        killed_s = time.monotonic()
        stream.becomes("restored")
        return stream.next_after(killed_s)


def camera_unplugged(bench: Bench) -> float:
    """Camera (a file stands in) unplugged for 3 s."""
    device, away = bench.folder / "video0", bench.folder / "away"
    away.unlink(missing_ok=True)
    launch(f"videotestsrc num-buffers=50 ! {SMALL} ! jpegenc ! avimux", device)
    decode = f"filesrc location={device} ! decodebin ! videoconvert ! video/x-raw,format=BGR"
    states: list[str] = []
    camera = LiveSource(
        lambda: GstProcess(f"{decode} ! identity sync=true".split()),
        name="video0",
        on_event=lambda event: states.append(event.state),
    )
    with Watched(bench.segment, camera) as stream:
        stream.runs()
        device.rename(away)
        until(lambda: states.count("connecting") >= 2)
        time.sleep(OUTAGE_S)
        away.rename(device)
        return stream.next_after(time.monotonic())


def corrupt_h264(bench: Bench) -> float:
    """60 bytes of 100 frames of H.264 changed: longest gap between two frames."""
    path = bench.folder / "film.h264"
    launch(f"videotestsrc num-buffers=100 pattern=ball ! {SMALL} ! x264enc key-int-max=10", path)
    data, random = bytearray(path.read_bytes()), np.random.default_rng(0)
    for place in random.integers(len(data) // 10, len(data), 60):
        data[place] ^= int(random.integers(1, 256))
    write_bytes(path, bytes(data))
    text = f"gst:filesrc location={path} ! h264parse ! avdec_h264"
    with bench.segment.stream(text, policy="all") as stream:
        times_s = [out.frame.timestamp_s for out in stream if out.frame is not None]
    return float(np.diff([t for t in times_s if t is not None]).max())


def size_changes(bench: Bench) -> float:
    """Size changes in mid-stream: time between two results."""
    text = (
        "gst:videotestsrc num-buffers=30 ! video/x-raw,width=64,height=48 ! c. videotestsrc "
        "num-buffers=30 ! video/x-raw,width=97,height=31 ! c. concat name=c ! identity sync=true"
    )
    before_s: dict[tuple[int, ...], float] = {}
    with bench.segment.stream(text, policy="all") as stream:
        for out in stream:
            if out.mask.shape == (31, 97):
                return time.monotonic() - before_s[48, 64]
            before_s[out.mask.shape] = time.monotonic()
    raise RuntimeError("the second size never came")


def one_of_two_dies(bench: Bench) -> float:
    """One of two streams dies: the other's longest gap in 4 s."""
    with RtspServer() as first, RtspServer() as second:
        urls = {"dies": first.url, "lives": second.url}
        with Watched(bench.segment, urls) as stream:
            until(lambda: {"dies", "lives"} <= {name for _, name in stream.results})
            stream.runs(20)
            since_s = time.monotonic()
            first.kill()
            time.sleep(_LOOKED_AT_S)
            return stream.longest_gap_s(since_s, "lives")


def slow_consumer(bench: Bench) -> float:
    """Consumer takes one result a second: the age of the oldest that it gets in 4 s."""
    with bench.segment.stream(CAMERA) as stream:
        next(stream)
        ages_ms = []
        for _ in range(int(_LOOKED_AT_S)):
            time.sleep(1)
            ages_ms.append(next(stream).age_ms or 0.0)
    return max(ages_ms) / 1000


def sigterm(bench: Bench) -> float:
    """SIGTERM under load: time until the video is whole and the program has ended."""
    with program(bench, "out.mp4") as process:
        until(lambda: bool(list(bench.folder.glob(".out.*"))))
        time.sleep(1)
        start_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=GIVE_UP_S)
        elapsed_s = time.monotonic() - start_s
    capture = cv2.VideoCapture(str(bench.folder / "out.mp4"))
    if process.returncode or not capture.read()[0]:
        raise RuntimeError(f"the program ended with {process.returncode} and no whole video")
    return elapsed_s


def disk_full(bench: Bench) -> float:
    """Disk full under the sink: time until the program has ended with whole masks."""
    disk = bench.folder / "disk"
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets us mount no small file system")
    try:
        with program(bench, "disk") as process:
            full_s = time.monotonic()
            while process.poll() is None:
                status = os.statvfs(disk)
                if status.f_bavail * status.f_frsize > 8192:
                    full_s = time.monotonic()
                time.sleep(0.005)
            elapsed_s = time.monotonic() - full_s
            _, said = process.communicate()
        masks = [path for path in disk.iterdir() if read_mask(path).shape]
        if process.returncode != 1 or "free space" not in said or not masks:
            raise RuntimeError(f"the program ended with {process.returncode}: {said}")
        return elapsed_s
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def clock_jumps(bench: Bench) -> float:
    """Wall clock two hours ahead: longest gap between results."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed, which moves the clock of one process")
    setting = bench.folder / "clock"
    setting.write_text("+0\n")
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(setting),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }
    code = (
        "import sys, time\nfrom cclseg import Segmenter\n"
        "with Segmenter(sys.argv[2], backend='onnxruntime', threads=1) as segment:\n"
        "    for out in segment.stream(sys.argv[1]):\n"
        "        print(time.monotonic(), time.time(), flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, CAMERA, str(bench.network)],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    looks: list[tuple[float, float]] = []
    giving_up = threading.Timer(GIVE_UP_S, process.kill)
    giving_up.start()
    try:
        for line in process.stdout:
            monotonic_s, wall_s = map(float, line.split())
            looks.append((monotonic_s, wall_s))
            if len(looks) == 50:
                setting.write_text("+7200\n")
            if wall_s - looks[0][1] > 7000 and monotonic_s - looks[49][0] > _LOOKED_AT_S:
                break
        else:
            raise RuntimeError("the stream has ended, or the clock did not jump")
    finally:
        giving_up.cancel()
        process.kill()
        process.communicate()
    return float(np.diff([at_s for at_s, _ in looks[49:]]).max())


def receiver_killed(bench: Bench) -> float:
    """RTSP server that takes our video killed, started again after 3 s."""
    frame = np.zeros((48, 64, 3), np.uint8)
    result = bench.segment(frame)
    folders = [bench.folder / f"taken_{time.monotonic_ns()}_{number}" for number in range(2)]
    for folder in folders:
        folder.mkdir()
    ended = threading.Event()
    with RtspServer(folder=folders[0]) as server, open_sink(server.taken_url, fps=10) as sink:

        def write() -> None:
            with closing(open_source(CAMERA.replace("50/1", "10/1")).frames()) as frames:
                for image in frames:
                    sink.write(image, result)
                    if ended.is_set():
                        return

        writer = threading.Thread(target=write)
        writer.start()
        try:
            until(lambda: len(list(folders[0].iterdir())) > 5)
            server.kill()
            time.sleep(OUTAGE_S)
            with RtspServer(folder=folders[1], port=server.port):
                started_s = time.monotonic()
                until(lambda: any(folders[1].iterdir()))
                return time.monotonic() - started_s
        finally:
            ended.set()
            writer.join()


@dataclass(frozen=True)
class Fault:
    """A fault and how often it is brought about.

    Attributes:
        bring_about: Does it once and returns what is timed, in seconds.
        rounds: At most so often, where it takes long.
    """

    bring_about: Callable[[Bench], float]
    rounds: int = 100


FAULTS = (
    Fault(server_killed), Fault(link_cut, rounds=2), Fault(frames_stall),
    Fault(server_hangs, rounds=2), Fault(sender_stops), Fault(pipeline_crashes),
    Fault(camera_unplugged), Fault(receiver_killed, rounds=2), Fault(corrupt_h264),
    Fault(size_changes), Fault(one_of_two_dies, rounds=2), Fault(slow_consumer, rounds=2),
    Fault(clock_jumps, rounds=2), Fault(sigterm), Fault(disk_full),
)  # fmt: skip
