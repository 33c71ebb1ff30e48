"""Telemetry: asks for the pose of a frame, of a live link or of a log of a flight."""

from __future__ import annotations

import logging
import mmap
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..closing import Closing
from ..errors import SourceError
from .packets import Found, PacketReader, next_packet
from .senders import Counts

if TYPE_CHECKING:
    from ..frame import Frame
    from ..pose import Pose
    from .links import Link
    from .vehicle import Vehicle

_log = logging.getLogger(__name__)

_SLICE_S = 0.1  # how soon a close is noticed
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 10.0
_SENDERS = 16
_STAMP_BYTES = 8


@dataclass(frozen=True, slots=True)
class TelemetryStats:
    """How a link is doing.

    Attributes:
        system: Number of the aircraft; None before its first heartbeat.
        found: What was in the bytes.
        counts: What became of the packets.
        losses: Times that the link was lost.
        poses: Frames that got a pose.
        without_pose: Frames for which nothing was near enough in time.
    """

    system: int | None
    found: Found
    counts: Counts
    losses: int
    poses: int
    without_pose: int


class Telemetry(Closing, ABC):
    """Where the camera was at the time of a frame. Any thread may ask."""

    def __init__(self, vehicle: Vehicle) -> None:
        self._vehicle = vehicle
        self._lock = threading.Lock()
        self._found = Found()
        self._losses = 0
        self._poses = 0
        self._without_pose = 0

    def pose_of(self, frame: Frame) -> Pose | None:
        """Returns where the camera was; None where nothing was told near enough in time."""
        with self._lock:
            pose = self._pose(frame)
            self._poses += pose is not None
            self._without_pose += pose is None
        return pose

    def utc_of(self, frame: Frame) -> float | None:
        """Returns when a frame was taken, in seconds of UTC since 1970 by the aircraft's clock.

        None where the aircraft has not told the time, or the frame has none.
        """
        with self._lock:
            time_s = self._time_s(frame)
            return None if time_s is None else self._vehicle.utc_s(time_s)

    def stats(self) -> TelemetryStats:
        """Returns the counts so far."""
        with self._lock:
            return TelemetryStats(
                system=self._vehicle.system,
                found=Found(**_fields(self._found)),
                counts=Counts(**_fields(self._vehicle.counts)),
                losses=self._losses,
                poses=self._poses,
                without_pose=self._without_pose,
            )

    def _pose(self, frame: Frame) -> Pose | None:
        time_s = self._time_s(frame)
        if time_s is None:
            return self._vehicle.pose_of_image(frame.index)
        return self._vehicle.pose_at(time_s)

    @abstractmethod
    def _time_s(self, frame: Frame) -> float | None:
        """Returns when a frame was taken by the clock of the packets; None for a still photo."""


class LiveTelemetry(Telemetry):
    """A link that is read in a thread of its own, and opened again whenever it is lost.

    Args:
        connect: Opens the link. The first time it must succeed; later it is tried again and again.
        vehicle: What learns of the packets.

    Example:
        >>> with open_telemetry("udp://:14550") as telemetry:  # doctest: +SKIP
        ...     pose = telemetry.pose_of(frame)
    """

    def __init__(self, connect: Callable[[], Link], vehicle: Vehicle) -> None:
        super().__init__(vehicle)
        self._connect = connect
        self._readers: OrderedDict[Hashable, PacketReader] = OrderedDict()
        self._off = threading.Event()
        self.link = connect()
        self._thread = threading.Thread(target=self._run, name="cclseg-mavlink", daemon=True)
        self._thread.start()

    def _time_s(self, frame: Frame) -> float:
        return (time.monotonic_ns() if frame.captured_ns is None else frame.captured_ns) / 1e9

    def _run(self) -> None:
        failures = 0
        while not self._off.is_set():
            try:
                if failures:
                    self.link = self._connect()
                    _log.info("the telemetry is back")
                failures = 0
                self._read(self.link)
            except SourceError as error:
                self.link.close()
                failures += 1
                self._losses += failures == 1
                retry_s = min(_FIRST_RETRY_S * 2.0 ** min(failures - 1, 10), _LONGEST_RETRY_S)
                _log.warning("the telemetry is lost: %s; next attempt in %.1f s", error, retry_s)
                self._readers.clear()
                self._off.wait(retry_s)
        self.link.close()

    def _read(self, link: Link) -> None:
        while not self._off.is_set():
            received = link.receive(_SLICE_S)
            if received is None:
                continue
            arrived_s = time.monotonic_ns() / 1e9
            with self._lock:
                for packet in self._reader(received.sender).feed(received.data):
                    self._vehicle.take(packet, arrived_s)

    def _reader(self, sender: Hashable) -> PacketReader:
        """Returns the reader of a sender's bytes; the longest silent one makes room for a new."""
        reader = self._readers.pop(sender, None) or PacketReader(self._found)
        self._readers[sender] = reader
        if len(self._readers) > _SENDERS:
            self._readers.popitem(last=False)
        return reader

    def close(self) -> None:
        """Ends the thread and frees the link. May be called twice."""
        self._off.set()
        self._thread.join()


class FlightLog(Telemetry):
    """A ``.tlog``: packets with the time at which a ground station got them.

    A film's frames count from ``start_s`` after the first packet; a still photo has the pose that
    the camera told for the picture of its number.

    Args:
        path: The log.
        vehicle: What learns of the packets.
        start_s: Seconds from the log's first packet to the film's first frame; may be negative.

    Raises:
        SourceError: The file cannot be read, or no packet is in it.
    """

    def __init__(self, path: Path, vehicle: Vehicle, *, start_s: float = 0.0) -> None:
        super().__init__(vehicle)
        self._first_s: float | None = None
        try:
            with path.open("rb") as file:
                if path.stat().st_size:
                    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                        self._load(data)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}; check the path") from error
        if self._first_s is None:
            raise SourceError(f"{path} holds no MAVLink packet; expected a .tlog")
        self._start_s: float = self._first_s + start_s

    def _load(self, data: mmap.mmap) -> None:
        place = 0
        while True:
            packet, begin, end = next_packet(data, place, self._found)
            if packet is None and begin + 1 >= len(data):
                return
            if packet is None:  # the last one is cut off, or no packet: look behind it
                place = begin + 1
                continue
            self._found.skipped_bytes -= min(_STAMP_BYTES, begin - place)
            stamp_s = int.from_bytes(data[max(0, begin - _STAMP_BYTES) : begin], "big") / 1e6
            self._first_s = stamp_s if self._first_s is None else self._first_s
            self._vehicle.take(packet, stamp_s)
            place = end

    def _time_s(self, frame: Frame) -> float | None:
        return None if frame.timestamp_s is None else self._start_s + frame.timestamp_s


def _fields(counts: Found | Counts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in counts.__slots__}
