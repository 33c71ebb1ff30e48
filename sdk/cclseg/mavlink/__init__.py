"""MAVLink: positions and attitudes from an autopilot, read and never written.

A small reader of its own: pymavlink is under the LGPL, carries the whole message set, and belongs
into ground stations; here six messages are read, and bytes of any kind must do no harm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SourceError
from ..stream_texts import number, read_options, whole
from .telemetry import FlightLog, LiveTelemetry, Telemetry, TelemetryStats
from .vehicle import DOWN, STALE_S, Vehicle

if TYPE_CHECKING:
    from .links import Link

__all__ = ["Telemetry", "TelemetryStats", "open_telemetry"]

_FORMS = (
    "expected udp://HOST:PORT (listens; udp://:14550), tcp://HOST:PORT, serial:/dev/ttyACM0,"
    "baud=57600, or a .tlog file"
)


def _angles(value: str) -> tuple[float, float, float]:
    parts = value.split("/")
    if len(parts) != 3:
        raise ValueError("YAW/PITCH/ROLL in degrees, such as 0/-90/0")
    yaw, pitch, roll = map(_finite, parts)
    return yaw, pitch, roll


def _finite(value: str) -> float:
    if not math.isfinite(number(value)):
        raise ValueError("a number")
    return number(value)


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "system": whole,
    "mount": _angles,
    "stale_s": _finite,
    "baud": whole,
    "start_s": _finite,
}


def open_telemetry(address: str | Path) -> Telemetry:
    """Opens the telemetry of an aircraft.

    Nothing is sent: no heartbeat, no request. An autopilot that sends nothing by itself needs a
    router or a ground station that asks it.

    Args:
        address: ``udp://HOST:PORT`` listens at a port of this machine, without a host at all its
            addresses; ``tcp://HOST:PORT`` connects; ``serial:/dev/ttyACM0``; or the path of a
            ``.tlog``. Options follow behind commas: ``system`` (number of the aircraft; the first
            autopilot that is heard), ``mount`` (YAW/PITCH/ROLL of a camera that is fixed to the
            aircraft, 0/-90/0: straight down), ``stale_s`` (1.5), ``baud`` (57600), and for logs
            ``start_s`` (seconds from the first packet to the film's first frame).

    Returns:
        A context manager with a method ``pose_of(frame)``.

    Raises:
        SourceError: The address cannot be read, or there is nothing.

    Example:
        >>> with open_telemetry("udp://:14550,system=1") as telemetry:  # doctest: +SKIP
        ...     for out in segmenter.stream(PosedSource(open_source("csi://0"), telemetry)):
        ...         print(out.frame.pose)
    """
    text = str(address)
    place, _, rest = text.partition(",")
    options = read_options(text, rest, _OPTIONS)
    start_s, baud = options.pop("start_s", None), options.pop("baud", None)
    if (baud is not None) > place.startswith("serial:"):
        raise SourceError(f"{text}: only serial ports have a baud rate")
    vehicle = _vehicle(text, options)
    if connect := _connect(text, place, baud or 57600):
        if start_s is not None:
            raise SourceError(f"{text}: only a .tlog has a start_s")
        return LiveTelemetry(connect, vehicle)
    if Path(place).is_file():
        recorded = _vehicle(text, options, recorded=True)
        return FlightLog(Path(place), recorded, start_s=start_s or 0.0)
    raise SourceError(f"{text}: there is no such file; {_FORMS}")


def _vehicle(text: str, options: dict[str, Any], *, recorded: bool = False) -> Vehicle:
    system, stale_s = options.get("system"), options.get("stale_s", STALE_S)
    if system is not None and not 1 <= system <= 255:
        raise SourceError(f"{text}: system is {system}; expected 1 to 255")
    if not 0 < stale_s < 3600:
        raise SourceError(f"{text}: stale_s is {stale_s}; expected seconds above 0")
    return Vehicle(
        system=system,
        stale_s=stale_s,
        mount_deg=options.get("mount", DOWN),
        recorded=recorded,
    )


def _connect(text: str, place: str, baud: int) -> Callable[[], Link] | None:
    """Returns what opens a live link; None for what may be a file."""
    from . import links

    if place.startswith("serial:"):
        return lambda: links.SerialLink(place.removeprefix("serial:").removeprefix("//"), baud)
    found = re.fullmatch(r"(udp|tcp)://(\[[0-9a-fA-F:.]+\]|[^/:\[\]]*):(\d{1,5})/?", place)
    if found is None:
        if re.match(r"[a-z]+:", place):
            raise SourceError(f"{text}: {_FORMS}")
        return None
    scheme, host, port = found[1], found[2].strip("[]"), int(found[3])
    if port > 65535 or (scheme == "tcp" and not host):
        raise SourceError(f"{text}: {_FORMS}")
    if scheme == "udp":
        return lambda: links.UdpLink(host, port)
    return lambda: links.TcpLink(host, port)
