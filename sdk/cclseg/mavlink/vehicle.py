"""One aircraft as its packets tell: where it is, how it is turned, where its camera looks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ..attitude import Quaternion, after, between, from_angles, to_angles, turned
from ..pose import Pose
from .messages import (
    FORMS,
    Attitude,
    GimbalAttitude,
    Heartbeat,
    ImageCaptured,
    Position,
    SystemTime,
    decode,
)
from .senders import Counts, Sender
from .track import KEPT, Track

if TYPE_CHECKING:
    from .clock import BootClock
    from .messages import Message
    from .packets import Packet

STALE_S = 1.5
DOWN = (0.0, -90.0, 0.0)

_REMEMBERED_IMAGES = 20_000
_EARTH_M = 6_378_137.0


class Vehicle:
    """Takes the packets of a link and tells the pose of one aircraft's camera.

    The aircraft is the first one whose autopilot sends a heartbeat; others are passed over. Where a
    gimbal tells its attitude the camera is on it; otherwise the camera is fixed to the aircraft.

    Args:
        system: The only aircraft that counts; None for the first one.
        mount_deg: Yaw, pitch and roll of a fixed camera in the axes of the aircraft.
        stale_s: Seconds after which a position or attitude is too old to tell anything.
        kept: Positions and attitudes that are remembered.
        recorded: A whole flight is read before the first pose is asked for. Everything is
            remembered then, by the clock that was right when it was told: in an hour two clocks
            drift apart by a fifth of a second, and an autopilot may be switched on anew.

    Attributes:
        system: Number of the aircraft, None before its first heartbeat.
        autopilot: Number of its part that flies it, None before its first heartbeat.
        gimbal: Number of its part that turns the camera, None where there is none.
        images: The pictures that its camera told of, by their numbers.
        counts: What became of the packets.
    """

    def __init__(
        self,
        *,
        system: int | None = None,
        mount_deg: tuple[float, float, float] = DOWN,
        stale_s: float = STALE_S,
        kept: int = KEPT,
        recorded: bool = False,
    ) -> None:
        self.system = system
        self.autopilot: int | None = None
        self.gimbal: int | None = None
        self.counts = Counts()
        self.images: dict[int, ImageCaptured] = {}
        self._recorded = recorded
        self._mount = from_angles(*mount_deg)
        self._senders: dict[int, Sender] = {}
        remembered = None if recorded else kept
        self._positions = Track[Position](_position_between, _position_onward, stale_s, remembered)
        self._attitudes = Track[Attitude](_attitude_between, _attitude_onward, stale_s, remembered)
        self._gimbals = Track[GimbalAttitude](_gimbal_between, _gimbal_onward, stale_s, remembered)
        self._utc_s: float | None = None

    def take(self, packet: Packet, arrived_s: float) -> None:
        """Takes a packet.

        Args:
            packet: From any sender.
            arrived_s: When it came, by the clock that poses are asked for.
        """
        self.counts.signed += packet.signed
        form = FORMS.get(packet.message)
        message = None if form is None else decode(form, packet.payload)
        if isinstance(message, Heartbeat) and message.is_autopilot and self.autopilot is None:
            self.system = packet.system if self.system is None else self.system
            self.autopilot = packet.component if packet.system == self.system else None
        if packet.system != self.system:
            self.counts.foreign += 1
            return
        sender = self._senders.setdefault(packet.component, Sender())
        if not sender.count(packet, self.counts) or form is None:
            return
        if message is None:
            self.counts.unknowing += 1
        elif not isinstance(message, Heartbeat):
            self._learn(message, packet.component, sender.clock, arrived_s)

    def _learn(self, message: Message, component: int, clock: BootClock, arrived_s: float) -> None:
        assert not isinstance(message, Heartbeat)
        restarts, boot_s = clock.restarts, message.boot_ms / 1e3
        if not clock.read(boot_s, arrived_s):
            self.counts.untimely += 1
            return
        if clock.restarts > restarts:
            self._forget(component)
        time_s = boot_s + clock.offset_s if self._recorded else boot_s
        if isinstance(message, GimbalAttitude):
            self.gimbal = component if self.gimbal is None else self.gimbal
            if component == self.gimbal:
                self._gimbals.add(time_s, message)
        elif isinstance(message, ImageCaptured):
            self.images[message.index] = message
            if len(self.images) > _REMEMBERED_IMAGES:
                del self.images[next(iter(self.images))]
        elif component == self.autopilot:
            self._learn_of_aircraft(message, time_s)

    def _learn_of_aircraft(self, message: Message, time_s: float) -> None:
        if isinstance(message, Position):
            self._positions.add(time_s, message)
        elif isinstance(message, Attitude):
            self._attitudes.add(time_s, message)
        elif isinstance(message, SystemTime):
            self._utc_s = message.unix_us / 1e6 - time_s

    def _forget(self, component: int) -> None:
        """Drops what counts from another start of a sender."""
        self.counts.restarts += 1
        if self._recorded:
            return
        if component == self.gimbal:
            self._gimbals.clear()
        if component == self.autopilot:
            self._positions.clear()
            self._attitudes.clear()

    def pose_at(self, time_s: float) -> Pose | None:
        """Returns where the camera was; None where no position is near enough in time.

        Angles that are not known are None.

        Args:
            time_s: By the clock of ``arrived_s``.
        """
        key_s = self._key_s(self.autopilot, time_s)
        position = None if key_s is None else self._positions.at(key_s)
        if key_s is None or position is None:
            return None
        pose = Pose(
            position.latitude_deg, position.longitude_deg, position.altitude_m, position.height_m
        )
        return _looking(pose, self._camera_at(time_s, self._attitudes.at(key_s)))

    def pose_of_image(self, index: int) -> Pose | None:
        """Returns where the camera was when it took a picture, as it told; None if it did not."""
        image = self.images.get(index)
        if image is None:
            return None
        pose = Pose(image.latitude_deg, image.longitude_deg, image.altitude_m, image.height_m)
        return _looking(pose, image.q)

    def utc_s(self, time_s: float) -> float | None:
        """Returns seconds of UTC since 1970 by the aircraft's clock; None where it has none."""
        key_s = self._key_s(self.autopilot, time_s)
        return None if key_s is None or self._utc_s is None else key_s + self._utc_s

    def _key_s(self, component: int | None, time_s: float) -> float | None:
        """Returns a time by the clock by which the values of a sender are remembered."""
        if self._recorded:
            return time_s
        sender = None if component is None else self._senders.get(component)
        if sender is None or not sender.clock.known:
            return None
        return time_s - sender.clock.offset_s

    def _camera_at(self, time_s: float, aircraft: Attitude | None) -> Quaternion | None:
        if self.gimbal is None:
            return None if aircraft is None else after(aircraft.q, self._mount)
        key_s = self._key_s(self.gimbal, time_s)
        gimbal = None if key_s is None else self._gimbals.at(key_s)
        if gimbal is None or gimbal.from_north:
            return None if gimbal is None else gimbal.q
        if aircraft is None:
            return None
        heading = from_angles(to_angles(aircraft.q)[0], 0, 0)
        return after(heading, gimbal.q)


def _looking(pose: Pose, q: Quaternion | None) -> Pose:
    if q is None:
        return pose
    yaw_deg, pitch_deg, roll_deg = to_angles(q)
    return replace(pose, yaw_deg=yaw_deg, pitch_deg=pitch_deg, roll_deg=roll_deg)


def _position_between(first: Position, second: Position, share: float) -> Position:
    def mix(a: float, b: float) -> float:
        return a + share * (b - a)

    around = (second.longitude_deg - first.longitude_deg + 180) % 360 - 180
    return replace(
        first,
        latitude_deg=mix(first.latitude_deg, second.latitude_deg),
        longitude_deg=_wrapped(first.longitude_deg + share * around),
        altitude_m=mix(first.altitude_m, second.altitude_m),
        height_m=mix(first.height_m, second.height_m),
    )


def _position_onward(last: Position, elapsed_s: float) -> Position:
    """Flies on at the speed that the aircraft told."""
    north_deg, east_deg = (
        math.degrees(speed * elapsed_s / _EARTH_M) for speed in (last.north_m_s, last.east_m_s)
    )
    shrunk = max(math.cos(math.radians(last.latitude_deg)), 1e-6)
    return replace(
        last,
        latitude_deg=min(90.0, max(-90.0, last.latitude_deg + north_deg)),
        longitude_deg=_wrapped(last.longitude_deg + east_deg / shrunk),
        altitude_m=last.altitude_m - last.down_m_s * elapsed_s,
        height_m=last.height_m - last.down_m_s * elapsed_s,
    )


def _wrapped(longitude_deg: float) -> float:
    return (longitude_deg + 180) % 360 - 180


def _attitude_between(first: Attitude, second: Attitude, share: float) -> Attitude:
    return replace(first, q=between(first.q, second.q, share))


def _attitude_onward(last: Attitude, elapsed_s: float) -> Attitude:
    return replace(last, q=turned(last.q, last.rates, elapsed_s))


def _gimbal_between(first: GimbalAttitude, second: GimbalAttitude, share: float) -> GimbalAttitude:
    if first.from_north != second.from_north:
        return first if share < 0.5 else second
    return replace(first, q=between(first.q, second.q, share))


def _gimbal_onward(last: GimbalAttitude, elapsed_s: float) -> GimbalAttitude:
    return replace(last, q=turned(last.q, last.rates, elapsed_s))
