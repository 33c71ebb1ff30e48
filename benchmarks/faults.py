"""How soon streams come back: every fault is brought about with real processes and timed.

Usage: python benchmarks/faults.py [--rounds 5] [--only NAME ...] [-o FILE] [--table FILE]

Where a fault interrupts a stream, what is timed begins when its cause has ended (the server runs
again, the link is mended) and ends with the next result; where it does not, it is the longest time
between two results while the fault lasts. Sources have the patience that is their default, the
network is tiny, so that what is timed is the stream's own. Servers, links and senders are those of
the tests. A fault that cannot be brought about here is listed with the reason; one that is not
survived fails the run. Takes about five minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import cv2
import numpy as np
import pytest
from _record import percentiles, write_result
from networks import write_brightest_band
from streaming import Link, RtspServer, free_port

from cclseg import Segmenter, open_sink, open_source
from cclseg.files import write_bytes
from cclseg.image_files import read_mask
from cclseg.sources.gst_process import GstProcess
from cclseg.sources.live import LiveSource

if TYPE_CHECKING:
    from cclseg.sources import Source

_SMALL = "video/x-raw,format=I420,width=64,height=48,framerate=50/1"
_CAMERA = f"gst:videotestsrc is-live=true ! {_SMALL}"
_GIVE_UP_S = 60.0
_OUTAGE_S = 3.0
_LONG_OUTAGE_S = 30.0
_LOOKED_AT_S = 4.0


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
        _until(lambda: len(self.results) >= target)

    def becomes(self, state: str) -> None:
        """Waits until the source has been in a state."""
        _until(lambda: state in self.events)

    def next_after(self, start_s: float) -> float:
        """Waits for the next result and returns how long after a moment it came."""
        _until(lambda: bool(self.results) and self.results[-1][0] > start_s)
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


def server_killed(bench: Bench) -> float:
    """RTSP server killed, started again after 3 s."""
    with RtspServer() as server, Watched(bench.segment, server.url) as stream:
        stream.runs()
        server.kill()
        stream.becomes("lost")
        time.sleep(_OUTAGE_S)
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
        time.sleep(_OUTAGE_S - 2)
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
        f"gst-launch-1.0 -q videotestsrc is-live=true ! {_SMALL} ! x264enc tune=zerolatency "
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
                time.sleep(_OUTAGE_S)
        return recovery_s


def pipeline_crashes(bench: Bench) -> float:
    """Decoder's process killed."""
    with Watched(bench.segment, _CAMERA) as stream:
        stream.runs()
        for child in _children():
            os.kill(child, signal.SIGKILL)
        killed_s = time.monotonic()
        stream.becomes("restored")
        return stream.next_after(killed_s)


def camera_unplugged(bench: Bench) -> float:
    """Camera (a file stands in) unplugged for 3 s."""
    device, away = bench.folder / "video0", bench.folder / "away"
    away.unlink(missing_ok=True)
    _launch(f"videotestsrc num-buffers=50 ! {_SMALL} ! jpegenc ! avimux", device)
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
        _until(lambda: states.count("connecting") >= 2)
        time.sleep(_OUTAGE_S)
        away.rename(device)
        return stream.next_after(time.monotonic())


def corrupt_h264(bench: Bench) -> float:
    """Damaged H.264: 60 bytes of 100 frames changed."""
    path = bench.folder / "film.h264"
    _launch(f"videotestsrc num-buffers=100 pattern=ball ! {_SMALL} ! x264enc key-int-max=10", path)
    data, random = bytearray(path.read_bytes()), np.random.default_rng(0)
    for place in random.integers(len(data) // 10, len(data), 60):
        data[place] ^= int(random.integers(1, 256))
    write_bytes(path, bytes(data))
    text = f"gst:filesrc location={path} ! h264parse ! avdec_h264"
    with bench.segment.stream(text, policy="all") as stream:
        times_s = [out.frame.timestamp_s for out in stream if out.frame is not None]
    return float(np.diff([t for t in times_s if t is not None]).max())


def size_changes(bench: Bench) -> float:
    """Size changes in mid-stream."""
    text = (
        "gst:videotestsrc num-buffers=100 ! video/x-raw,width=64,height=48 ! c. videotestsrc "
        "num-buffers=100 ! video/x-raw,width=97,height=31 ! c. concat name=c ! identity sync=true"
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
            _until(lambda: {"dies", "lives"} <= {name for _, name in stream.results})
            stream.runs(20)
            since_s = time.monotonic()
            first.kill()
            time.sleep(_LOOKED_AT_S)
            return stream.longest_gap_s(since_s, "lives")


def slow_consumer(bench: Bench) -> float:
    """Consumer takes one result a second: the age of the oldest that it gets in 4 s."""
    with bench.segment.stream(_CAMERA) as stream:
        next(stream)
        ages_ms = []
        for _ in range(int(_LOOKED_AT_S)):
            time.sleep(1)
            ages_ms.append(next(stream).age_ms or 0.0)
    return max(ages_ms) / 1000


def sigterm(bench: Bench) -> float:
    """SIGTERM under load: time until the video is whole and the program has ended."""
    with _program(bench, "out.mp4") as process:
        _until(lambda: bool(list(bench.folder.glob(".out.*"))))
        time.sleep(1)
        start_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=_GIVE_UP_S)
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
        with _program(bench, "disk") as process:
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
        [sys.executable, "-c", code, _CAMERA, str(bench.network)],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    looks: list[tuple[float, float]] = []
    giving_up = threading.Timer(_GIVE_UP_S, process.kill)
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
            for image in open_source(f"{_CAMERA.partition('framerate')[0]}framerate=10/1"):
                sink.write(image, result)
                if ended.is_set():
                    return

        writer = threading.Thread(target=write)
        writer.start()
        try:
            _until(lambda: len(list(folders[0].iterdir())) > 5)
            server.kill()
            time.sleep(_OUTAGE_S)
            with RtspServer(folder=folders[1], port=server.port):
                started_s = time.monotonic()
                _until(lambda: any(folders[1].iterdir()))
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


_FAULTS = (
    Fault(server_killed), Fault(link_cut, rounds=2), Fault(frames_stall),
    Fault(server_hangs, rounds=2), Fault(sender_stops), Fault(pipeline_crashes),
    Fault(camera_unplugged), Fault(receiver_killed, rounds=3), Fault(corrupt_h264),
    Fault(size_changes), Fault(one_of_two_dies, rounds=3), Fault(slow_consumer, rounds=3),
    Fault(clock_jumps, rounds=3), Fault(sigterm, rounds=3), Fault(disk_full, rounds=3),
)  # fmt: skip


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="names of faults")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    parser.add_argument("--table", type=Path, help="also write the table, as Markdown")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        cases = [
            _measured(fault, bench, arguments.rounds)
            for fault in _FAULTS
            if arguments.only is None or fault.bring_about.__name__ in arguments.only
        ]
        bench.segment.close()
    table = _table(cases)
    print(table)
    if arguments.table is not None:
        write_bytes(arguments.table, table.encode())
    print(write_result("faults", {"outage_s": _OUTAGE_S, "faults": cases}, arguments.out))


def _measured(fault: Fault, bench: Bench, rounds: int) -> dict[str, Any]:
    what = (fault.bring_about.__doc__ or "").rstrip(".")
    case: dict[str, Any] = {"name": fault.bring_about.__name__, "what": what}
    print(f"{case['name']} ...", file=sys.stderr, flush=True)
    samples_s: list[float] = []
    try:
        for _ in range(min(rounds, fault.rounds)):
            samples_s.append(fault.bring_about(bench))
    except pytest.skip.Exception as reason:
        return case | {"not_brought_about": str(reason)}
    return case | {"samples_s": samples_s, "seconds": percentiles(samples_s)}


def _table(cases: list[dict[str, Any]]) -> str:
    lines = ["| fault | times | median s | longest s |", "|---|---|---|---|"]
    for case in cases:
        samples_s = case.get("samples_s")
        figures = (
            f"{len(samples_s)} | {np.median(samples_s):.2f} | {max(samples_s):.2f}"
            if samples_s
            else f"0 | {case['not_brought_about']} |"
        )
        lines.append(f"| {case['what']} | {figures} |")
    return "\n".join(lines) + "\n"


@contextmanager
def _program(bench: Bench, out: str) -> Iterator[subprocess.Popen[str]]:
    """Runs ``cclseg predict`` on a camera that never ends."""
    command = [sys.executable, "-m", "cclseg", "predict", _CAMERA, "-m", str(bench.network)]
    process = subprocess.Popen(
        [*command, "--backend", "onnxruntime", "-o", out], cwd=bench.folder, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _launch(pipeline: str, target: Path) -> None:
    """Writes what a pipeline makes into a file."""
    words = ["gst-launch-1.0", "-q", *pipeline.split(), "!", "filesink", f"location={target}"]
    subprocess.run(words, check=True)


def _children() -> list[int]:
    return [
        int(child)
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def _until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _GIVE_UP_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"it did not happen within {_GIVE_UP_S:.0f} s")
        time.sleep(0.005)


if __name__ == "__main__":
    main()
