"""Telemetry over real sockets, a real serial line (a pseudo-terminal) and real files.

The aircraft hovers, so that what is asserted does not depend on how busy this machine is.
"""

import fcntl
import itertools
import os
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from mavlink_wire import Autopilot, dialect
from streaming import until

from cclseg.errors import SourceError
from cclseg.frame import Frame
from cclseg.mavlink import open_telemetry
from cclseg.sources import open_source
from cclseg.sources.posed import Lens, PosedSource

dialect()
IMAGE = np.zeros((48, 64, 3), np.uint8)


def now():
    return Frame(IMAGE, 0, "a", captured_ns=time.monotonic_ns())


def hovering(**options):
    autopilot = Autopilot(**options)
    autopilot.speed_m_s = 0.0
    return autopilot


@contextmanager
def sending(send, autopilot):
    """Sends what an aircraft sends in a thread of its own, until the test is over."""
    over = threading.Event()

    def run():
        for step in itertools.count():
            time_s = time.monotonic()
            parts = [autopilot.heartbeat()] if step % 10 == 0 else []
            try:
                send(b"".join([*parts, autopilot.position(time_s), autopilot.attitude(time_s)]))
            except OSError:
                return
            if over.wait(0.02):
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def at_the_place(pose, autopilot):
    latitude, longitude = autopilot.degrees(0.0)
    return (
        pose is not None
        and abs(pose.latitude_deg - latitude) < 1e-6
        and abs(pose.longitude_deg - longitude) < 1e-6
        and pose.height_m == autopilot.height_m
    )


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def sender():
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        yield one


@pytest.mark.parametrize("host", ["", "127.0.0.1", "[::1]"])
def test_datagrams_give_poses(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sender = socket.socket(family, socket.SOCK_DGRAM)
        telemetry = open_telemetry(f"udp://{host}:0")
    except (OSError, SourceError) as error:
        pytest.skip(f"this machine has no address {host}: {error}")
    autopilot = hovering()
    target = ("::1" if ":" in host else "127.0.0.1", telemetry.link.port)
    with sender, telemetry, sending(lambda data: sender.sendto(data, target), autopilot):
        until(lambda: at_the_place(telemetry.pose_of(now()), autopilot))
        until(lambda: telemetry.pose_of(now()) is not None and telemetry.stats().poses > 1)
        assert telemetry.stats().system == 1


def test_garbage_replays_and_other_aircraft_do_not_move_the_camera(sender):
    autopilot, other = hovering(), hovering(system=9)
    other.latitude = 10.0
    recorded = b"".join(data for _, data in hovering(boot_s=-90_000).flight(3, start_s=1e5))
    rng = np.random.default_rng(0)
    seen = []
    with open_telemetry("udp://127.0.0.1:0,system=1") as telemetry:
        port = telemetry.link.port

        def send(data):
            for part in (data, rng.bytes(200), data, recorded[:300], b"\xfd" * 40):
                sender.sendto(part, ("127.0.0.1", port))
            sender.sendto(other.heartbeat() + other.position(0.0), ("127.0.0.1", port))

        with sending(send, autopilot):
            until(lambda: telemetry.stats().counts.repeated > 50)
            for _ in range(20):
                pose = telemetry.pose_of(now())
                seen += [pose] if pose is not None else []
        stats = telemetry.stats()
    assert all(abs(pose.latitude_deg - 47) < 1 for pose in seen)
    assert stats.counts.foreign > 10
    assert stats.found.skipped_bytes > 1000


def test_when_nothing_comes_any_more_there_is_no_pose_and_it_is_counted(sender):
    autopilot = hovering()
    with open_telemetry("udp://127.0.0.1:0,stale_s=0.3") as telemetry:
        target = ("127.0.0.1", telemetry.link.port)
        with sending(lambda data: sender.sendto(data, target), autopilot):
            until(lambda: telemetry.pose_of(now()) is not None)
        until(lambda: telemetry.pose_of(now()) is None)
        before = telemetry.stats().without_pose
        assert telemetry.pose_of(now()) is None
        assert telemetry.stats().without_pose == before + 1
        with sending(lambda data: sender.sendto(data, target), autopilot):
            until(lambda: at_the_place(telemetry.pose_of(now()), autopilot))


def test_nothing_is_ever_sent():
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        autopilot = hovering()
        with open_telemetry("udp://127.0.0.1:0") as telemetry:
            target = ("127.0.0.1", telemetry.link.port)
            with sending(lambda data: peer.sendto(data, target), autopilot):
                until(lambda: telemetry.pose_of(now()) is not None)
        assert not select.select([peer], [], [], 0)[0]


def test_a_server_that_comes_back_is_connected_to_again():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        autopilot = hovering()
        with open_telemetry(address) as telemetry:
            for _ in range(2):
                connection, _ = server.accept()
                with connection, sending(connection.sendall, autopilot):
                    until(lambda: at_the_place(telemetry.pose_of(now()), autopilot))
            until(lambda: telemetry.stats().losses == 2)


def test_a_serial_line_gives_poses_and_is_opened_for_reading_only():
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    os.close(theirs)
    autopilot = hovering()
    with open_telemetry(f"serial:{name},baud=115200") as telemetry:
        with sending(lambda data: os.write(ours, data), autopilot):
            until(lambda: at_the_place(telemetry.pose_of(now()), autopilot))
        flags = fcntl.fcntl(telemetry.link._descriptor, fcntl.F_GETFL)
        assert flags & os.O_ACCMODE == os.O_RDONLY
        os.close(ours)  # the cable is pulled
        until(lambda: telemetry.stats().losses == 1)


def test_opening_and_closing_leaves_nothing_behind():
    descriptors = open_descriptors()
    for _ in range(50):
        telemetry = open_telemetry("udp://127.0.0.1:0")
        telemetry.close()
        telemetry.close()
        assert not telemetry._thread.is_alive()
    assert open_descriptors() < descriptors + 25  # half of what a leak would leave


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("udp://127.0.0.1", "expected udp://HOST:PORT"),
        ("udp://127.0.0.1:99999", "expected udp://HOST:PORT"),
        ("tcp://:5760", "expected udp://HOST:PORT"),
        ("http://host:80", "expected udp://HOST:PORT"),
        ("udp://:0,sytem=1", "unknown option 'sytem'; did you mean 'system'"),
        ("udp://:0,system=300", "expected 1 to 255"),
        ("udp://:0,mount=0/90", "YAW/PITCH/ROLL"),
        ("udp://:0,stale_s=nan", "expected a number"),
        ("udp://:0,start_s=3", r"only a \.tlog has a start_s"),
        ("udp://:0,baud=9600", "only serial ports have a baud rate"),
        ("serial:/dev/null,baud=57600", "is no serial port"),
        ("serial:/nonexistent", "cannot open serial:/nonexistent"),
        ("serial:/dev/null,baud=12345", "no serial port runs at 12345 baud"),
        ("missing.tlog", "there is no such file"),
    ],
)
def test_an_address_that_cannot_be_is_refused_with_advice(address, message):
    with pytest.raises(SourceError, match=message):
        open_telemetry(address)


def test_a_port_that_is_taken_is_refused_with_advice():
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(SourceError, match="another program may have the port"):
            open_telemetry(f"udp://127.0.0.1:{taken.getsockname()[1]}")


def test_a_server_that_is_not_there_is_an_error_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(SourceError, match="cannot connect"):
            open_telemetry(f"tcp://127.0.0.1:{free.getsockname()[1]}")


class TestLog:
    unix_s = 1_700_000_000

    @pytest.fixture
    def autopilot(self):
        return Autopilot()

    def write(self, path, parts):
        """As a ground station does: the microseconds of UTC before each packet, big-endian."""
        stamped = (
            round((self.unix_s + time_s) * 1e6).to_bytes(8, "big") + data for time_s, data in parts
        )
        path.write_bytes(b"".join(stamped))
        return path

    def test_a_film_has_the_poses_of_its_time(self, tmp_path, autopilot):
        path = self.write(tmp_path / "flight.tlog", autopilot.flight(20))
        frame = Frame(IMAGE, 7, "a", timestamp_s=5.03)
        with open_telemetry(f"{path},start_s=4.0") as telemetry:
            pose = telemetry.pose_of(frame)
        latitude, longitude = autopilot.degrees(9.03)
        assert pose.latitude_deg == pytest.approx(latitude, abs=2e-7)
        assert pose.longitude_deg == pytest.approx(longitude, abs=2e-7)
        assert telemetry.stats().counts.lost == 0
        assert telemetry.stats().found.skipped_bytes == 0

    def test_an_hour_of_drift_and_a_new_start_do_not_shift_the_film(self, tmp_path):
        """A clock of 100 ppm is a third of a second off in an hour; the aircraft moves 3 m then."""
        drift = 1 + 100e-6
        first = Autopilot(boot_s=50.0)
        parts = [
            *((t * drift, data) for t, data in first.flight(20)),
            *((t * drift, data) for t, data in first.flight(20, start_s=3600)),
            *Autopilot(boot_s=-3700.0).flight(20, start_s=3710),
        ]
        path = self.write(tmp_path / "flight.tlog", parts)
        with open_telemetry(path) as telemetry:
            for time_s, stamp_s in ((10, 10), (3610, 3610 * drift), (3725, 3725)):
                pose = telemetry.pose_of(Frame(IMAGE, 0, "a", timestamp_s=stamp_s))
                latitude, longitude = first.degrees(time_s)
                assert pose.latitude_deg == pytest.approx(latitude, abs=1e-6)
                assert pose.longitude_deg == pytest.approx(longitude, abs=1e-6)
            assert telemetry.stats().counts.restarts == 1

    def test_the_aircraft_tells_when_a_frame_was_taken(self, tmp_path, autopilot):
        told = autopilot.messages.MAVLink_system_time_message(1_800_000_000_000_000, 52_000)
        path = self.write(
            tmp_path / "a.tlog", [(0, autopilot.heartbeat()), (2, autopilot.pack(told))]
        )
        with open_telemetry(path) as telemetry:
            frame = Frame(IMAGE, 0, "a", timestamp_s=5.5)
            assert telemetry.utc_of(frame) == pytest.approx(1_800_000_003.5)
            assert telemetry.utc_of(Frame(IMAGE, 0, "a")) is None

    def test_photos_have_the_poses_that_the_camera_told(self, tmp_path, autopilot):
        told = [
            autopilot.messages.MAVLink_camera_image_captured_message(
                autopilot.boot_ms(t), 0, 0, 470000000 + t, 80000000, 1, 2, [1, 0, 0, 0], t, 1, b""
            )
            for t in range(3)
        ]
        parts = [(0, autopilot.heartbeat()), *((t, autopilot.pack(m)) for t, m in enumerate(told))]
        path = self.write(tmp_path / "flight.tlog", parts)
        with open_telemetry(path) as telemetry:
            poses = [telemetry.pose_of(Frame(IMAGE, index, "a")) for index in range(4)]
        assert [round(pose.latitude_deg * 1e7) - 470000000 for pose in poses[:3]] == [0, 1, 2]
        assert poses[3] is None

    def test_damage_in_the_middle_and_a_cut_at_the_end_lose_what_they_hit(
        self, tmp_path, autopilot
    ):
        path = self.write(tmp_path / "flight.tlog", autopilot.flight(20))
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + b"\xfd\xfe garbage \xfd" + data[middle + 200 : -7])
        with open_telemetry(path) as telemetry:
            assert telemetry.pose_of(Frame(IMAGE, 0, "a", timestamp_s=2.0)) is not None
            assert telemetry.pose_of(Frame(IMAGE, 0, "a", timestamp_s=19.0)) is not None
            assert 1 < telemetry.stats().counts.lost < 12

    @pytest.mark.parametrize("content", [b"", b"no packets in here", bytes(1000)])
    def test_a_file_without_packets_is_refused(self, tmp_path, content):
        (tmp_path / "a.tlog").write_bytes(content)
        with pytest.raises(SourceError, match="holds no MAVLink packet"):
            open_telemetry(tmp_path / "a.tlog")


class Fixed:
    """Knows one pose, for frames with an even number."""

    def __init__(self, pose):
        self.pose = pose

    def pose_of(self, frame):
        return None if frame.index % 2 else self.pose


class TestPosedSource:
    def test_frames_get_what_is_known_and_keep_what_they_had(self):
        virtual = open_source("virtual:seed=3,frames=4,size=96x64,gsd_m=1.0")
        own = [frame.pose for frame in virtual]
        other = own[0].__class__(1.0, 2.0)
        with PosedSource(virtual, Fixed(other), lens=Lens(focal_px=77.0)) as source:
            frames = list(source)
        assert (source.total, source.fps, source.live, source.name) == (4, 2.5, False, "virtual_3")
        assert [frame.pose for frame in frames] == [other, own[1], other, own[3]]
        assert {frame.camera.focal_length_px for frame in frames} == {77.0}

    def test_an_angle_of_view_is_a_focal_length(self):
        camera = Lens(hfov_deg=90.0).camera((480, 640))
        assert camera.focal_length_px == pytest.approx(320)
        assert camera.image_hw == (480, 640)

    @pytest.mark.parametrize(
        "figures", [{}, {"focal_px": 1.0, "hfov_deg": 1.0}, {"focal_px": 0.0}, {"hfov_deg": 180.0}]
    )
    def test_a_lens_that_cannot_be_is_refused(self, figures):
        with pytest.raises(ValueError, match=r"lens|focal_px|hfov_deg"):
            Lens(**figures)


def test_the_module_alone_needs_no_other_library():
    code = "import sys, cclseg.mavlink; print({'cv2', 'pymavlink', 'serial'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
