"""The messages that tell where an aircraft is and where its camera looks.

Numbers, fields and checksum seeds are those of the message set "common" (https://mavlink.io,
definitions under the MIT licence). Any other message is passed over unread.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..attitude import Quaternion, from_angles, normalized

_NO_AUTOPILOT = 8  # MAV_AUTOPILOT_INVALID: ground stations, gimbals, cameras
_GROUND_STATION = 6  # MAV_TYPE_GCS
_YAW_LOCK, _YAW_OF_VEHICLE, _YAW_OF_EARTH = 16, 32, 64  # GIMBAL_DEVICE_FLAGS
_FAILED_CAPTURE = 0

Rates: TypeAlias = tuple[float, float, float]
"""Radians per second about the axes ahead, right and down of a body."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Somebody is there.

    Attributes:
        is_autopilot: It is what flies an aircraft.
    """

    is_autopilot: bool


@dataclass(frozen=True, slots=True)
class SystemTime:
    """What the time is.

    Attributes:
        boot_ms: Milliseconds since the sender was switched on.
        unix_us: Microseconds of UTC since 1970.
    """

    boot_ms: int
    unix_us: int


@dataclass(frozen=True, slots=True)
class Attitude:
    """How the aircraft is turned.

    Attributes:
        boot_ms: Milliseconds since the sender was switched on.
        q: From the aircraft's axes to north, east and down.
        rates: Its own rates.
    """

    boot_ms: int
    q: Quaternion
    rates: Rates


@dataclass(frozen=True, slots=True)
class Position:
    """Where the aircraft is and how it moves.

    Attributes:
        boot_ms: Milliseconds since the sender was switched on.
        latitude_deg: Degrees north, WGS 84.
        longitude_deg: Degrees east, WGS 84.
        altitude_m: Above mean sea level.
        height_m: Above the place of take-off.
        north_m_s: Speed to the north.
        east_m_s: Speed to the east.
        down_m_s: Speed downwards.
    """

    boot_ms: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    height_m: float
    north_m_s: float
    east_m_s: float
    down_m_s: float


@dataclass(frozen=True, slots=True)
class GimbalAttitude:
    """Where the camera looks.

    Attributes:
        boot_ms: Milliseconds since the sender was switched on.
        q: From the camera's axes (ahead along its optical axis) to ahead, right and down on the
            level, where ahead is north or the aircraft's heading.
        rates: Its own rates, 0 where they are unknown.
        from_north: Ahead is north.
    """

    boot_ms: int
    q: Quaternion
    rates: Rates
    from_north: bool


@dataclass(frozen=True, slots=True)
class ImageCaptured:
    """A camera took a picture.

    Attributes:
        boot_ms: Milliseconds since the sender was switched on.
        index: Number of the picture, from 0.
        latitude_deg: Degrees north, WGS 84.
        longitude_deg: Degrees east, WGS 84.
        altitude_m: Above mean sea level.
        height_m: Above the ground.
        q: From the camera's axes to north, east and down; None where it is unknown.
    """

    boot_ms: int
    index: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    height_m: float
    q: Quaternion | None


Message: TypeAlias = Heartbeat | SystemTime | Attitude | Position | GimbalAttitude | ImageCaptured


@dataclass(frozen=True, slots=True)
class Form:
    """How a message is laid out on the wire.

    Attributes:
        name: Its name.
        fields: All fields in the order of the wire, extensions included.
        length: Bytes without the extensions, which MAVLink 1 does not send.
        seed: What the checksum also runs over, so that other definitions do not fit.
        read: Makes the message of its fields; None where the sender does not know the values.
    """

    name: str
    fields: struct.Struct
    length: int
    seed: int
    read: Callable[..., Message | None]


def decode(form: Form, payload: bytes) -> Message | None:
    """Returns the message in a payload whose checksum was right.

    MAVLink 2 leaves out zeros at the end of a payload, and newer definitions add fields there.

    Returns:
        None where the sender says that it does not know, or says what cannot be.
    """
    whole = payload[: form.fields.size].ljust(form.fields.size, b"\0")
    return form.read(*form.fields.unpack(whole))


def _heartbeat(mode: int, kind: int, autopilot: int, *_: int) -> Heartbeat:
    return Heartbeat(autopilot != _NO_AUTOPILOT and kind != _GROUND_STATION)


def _system_time(unix_us: int, boot_ms: int) -> SystemTime | None:
    return SystemTime(boot_ms, unix_us) if unix_us else None


def _attitude(boot_ms: int, roll: float, pitch: float, yaw: float, *rates: float) -> Message | None:
    angles = [math.degrees(angle) for angle in (yaw, pitch, roll)]
    if not all(map(math.isfinite, angles)):
        return None
    return Attitude(boot_ms, from_angles(*angles), _known(rates))


def _position(boot_ms: int, *values: int) -> Position | None:
    latitude, longitude, altitude, height, north, east, down, _ = values
    place = _place(latitude, longitude)
    if place is None:
        return None
    return Position(
        boot_ms, *place, altitude / 1e3, height / 1e3, north / 100, east / 100, down / 100
    )


def _gimbal(boot_ms: int, *values: Any) -> GimbalAttitude | None:
    q, flags = normalized(values[:4]), values[8]
    if q is None:
        return None
    from_north = flags & _YAW_OF_EARTH or (not flags & _YAW_OF_VEHICLE and flags & _YAW_LOCK)
    return GimbalAttitude(boot_ms, q, _known(values[4:7]), bool(from_north))


def _image(unix_us: int, boot_ms: int, *values: Any) -> ImageCaptured | None:
    latitude, longitude, altitude, height = values[:4]
    index, _, outcome, _ = values[8:]
    place = _place(latitude, longitude)
    if place is None or outcome == _FAILED_CAPTURE or index < 0:
        return None
    return ImageCaptured(
        boot_ms, index, *place, altitude / 1e3, height / 1e3, normalized(values[4:8])
    )


def _place(latitude: int, longitude: int) -> tuple[float, float] | None:
    """Returns degrees; None for 0, 0, which is sent before there is a position."""
    if (latitude, longitude) == (0, 0) or abs(latitude) > 90e7 or abs(longitude) > 180e7:
        return None
    return latitude / 1e7, longitude / 1e7


def _known(rates: tuple[float, ...]) -> Rates:
    first, second, third = (rate if math.isfinite(rate) else 0.0 for rate in rates)
    return first, second, third


FORMS: dict[int, Form] = {
    0: Form("HEARTBEAT", struct.Struct("<I5B"), 9, 50, _heartbeat),
    2: Form("SYSTEM_TIME", struct.Struct("<QI"), 12, 137, _system_time),
    30: Form("ATTITUDE", struct.Struct("<I6f"), 28, 39, _attitude),
    33: Form("GLOBAL_POSITION_INT", struct.Struct("<I4i3hH"), 28, 104, _position),
    263: Form("CAMERA_IMAGE_CAPTURED", struct.Struct("<QI4i4fiBb205s"), 255, 133, _image),
    285: Form("GIMBAL_DEVICE_ATTITUDE_STATUS", struct.Struct("<I7fIH2B2fB"), 40, 137, _gimbal),
}
"""The known messages by their numbers."""
