"""Where and when a photo was taken, and through which lens, as its EXIF and XMP say."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError
from .exif import Exif, read_exif
from .photo_tags import find_tags
from .pose import Camera, Pose
from .xmp import read_xmp

if TYPE_CHECKING:
    from .exif import Value

_DJI = "http://www.dji.com/drone-dji/1.0/"
_DIAGONAL_35MM = math.hypot(36, 24)
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_SAME_SHAPE = 0.01
_TIFF_MARKS = (b"II*\0", b"MM\0*")


@dataclass(frozen=True, slots=True)
class Placement:
    """What a photo says of how it was taken.

    Attributes:
        pose: None without a position.
        camera: None without a focal length that can be told in pixels.
        captured_at: UTC; None where the camera's time has no zone.
        damage: What could not be read, in words; empty where nothing is damaged.
    """

    pose: Pose | None = None
    camera: Camera | None = None
    captured_at: datetime | None = None
    damage: tuple[str, ...] = ()


def read_placement(path: Path, image_hw: tuple[int, int]) -> Placement:
    """Reads EXIF and DJI's XMP of an image file; the picture itself is not read again.

    What is damaged is left out and told, because the picture is worth more than its tags.

    Args:
        path: A JPEG, PNG, WebP or TIFF file.
        image_hw: Height and width of its picture in pixels, which may have been made smaller since
            the camera wrote its EXIF.
    """
    exif, xmp, damage = Exif(), b"", []
    try:
        with path.open("rb") as file:
            if file.read(4) in _TIFF_MARKS:
                exif = read_exif(file)
                packet = exif.image.get("XMP")
                xmp = packet if isinstance(packet, bytes) else b""
            else:
                file.seek(0)
                tags = find_tags(file)
                xmp = tags.xmp
                exif = read_exif(io.BytesIO(tags.exif)) if tags.exif else exif
    except (InputError, OSError) as error:
        damage.append(str(error))
    dji: dict[str, str] = {}
    try:
        dji = read_xmp(xmp, _DJI) if xmp else dji
    except InputError as error:
        damage.append(str(error))
    return Placement(
        pose=pose_of(exif, dji),
        camera=camera_of(exif, dji, image_hw),
        captured_at=captured_at(exif),
        damage=tuple(damage),
    )


def pose_of(exif: Exif, dji: Mapping[str, str]) -> Pose | None:
    """Returns position and attitude; None without a position.

    The attitude is that of the gimbal. Without one, yaw is the direction of the image by EXIF, if
    it counts from true north, or else the heading of the aircraft; pitch and roll are unknown.
    """
    latitude_deg = _degrees(exif.gps, "GPSLatitude", limit=90)
    longitude_deg = _degrees(exif.gps, "GPSLongitude", limit=180)
    if latitude_deg is None or longitude_deg is None:
        return None
    if latitude_deg == longitude_deg == 0:  # what receivers say that have not found themselves yet
        return None
    return Pose(
        latitude_deg=latitude_deg,
        longitude_deg=longitude_deg,
        altitude_m=_first(_altitude_m(exif.gps), _decimal(dji, "AbsoluteAltitude")),
        height_m=_decimal(dji, "RelativeAltitude"),
        yaw_deg=_first(
            _decimal(dji, "GimbalYawDegree"),
            _direction_deg(exif.gps),
            _decimal(dji, "FlightYawDegree"),
        ),
        pitch_deg=_decimal(dji, "GimbalPitchDegree"),
        roll_deg=_decimal(dji, "GimbalRollDegree"),
    )


def camera_of(exif: Exif, dji: Mapping[str, str], image_hw: tuple[int, int]) -> Camera | None:
    """Returns the camera; None where the focal length is unknown or the image was cut.

    The focal length comes from DJI's calibration, from the resolution of the sensor, or from the
    equivalent for 35 mm film, which is defined over the diagonal (CIPA DCG-001).
    """
    scale = _scale(exif.photo, image_hw)
    if scale is None:
        return None
    focal_px = _first(_calibrated_px(dji), _sensor_px(exif.photo))
    if focal_px is not None:
        focal_px *= scale
    elif film_mm := _number(exif.photo, "FocalLengthIn35mmFilm"):
        focal_px = film_mm / _DIAGONAL_35MM * math.hypot(*image_hw)
    if focal_px is None or not 0 < focal_px < math.inf:
        return None
    names = [name for key in ("Make", "Model") if isinstance(name := exif.image.get(key), str)]
    return Camera(focal_length_px=focal_px, image_hw=image_hw, model=" ".join(filter(None, names)))


def captured_at(exif: Exif) -> datetime | None:
    """Returns the time of the exposure in UTC, None where its zone is not known.

    The camera's clock and zone tell it to the fraction of a second; else the satellites do, to the
    second.
    """
    taken = _time(exif.photo.get("DateTimeOriginal"), "%Y:%m:%d %H:%M:%S")
    zone = _time(exif.photo.get("OffsetTimeOriginal"), "%z")
    if taken is not None and zone is not None:
        fraction = exif.photo.get("SubSecTimeOriginal")
        if isinstance(fraction, str) and fraction.isascii() and fraction.isdecimal():
            taken += timedelta(seconds=float(f"0.{fraction}"))
        return _utc(taken, zone.utcoffset() or timedelta())
    day = _time(exif.gps.get("GPSDateStamp"), "%Y:%m:%d")
    clock = exif.gps.get("GPSTimeStamp")
    if day is None or not isinstance(clock, tuple) or len(clock) != 3:
        return None
    hours, minutes, seconds = clock
    return _utc(day, -timedelta(hours=hours, minutes=minutes, seconds=seconds))


def _degrees(gps: Mapping[str, Value], name: str, *, limit: float) -> float | None:
    """Reads degrees, minutes and seconds with their sign."""
    parts = gps.get(name)
    side = gps.get(f"{name}Ref")
    if not isinstance(parts, tuple) or not isinstance(side, str) or not 1 <= len(parts) <= 3:
        return None
    degrees = sum(float(part) / 60.0**power for power, part in enumerate(parts))
    if not 0 <= degrees <= limit or side[:1].upper() not in ("N", "S", "E", "W"):
        return None
    return -degrees if side[:1].upper() in ("S", "W") else degrees


def _altitude_m(gps: Mapping[str, Value]) -> float | None:
    altitude_m = _number(gps, "GPSAltitude")
    below = gps.get("GPSAltitudeRef") == b"\x01"
    return -altitude_m if below and altitude_m is not None else altitude_m


def _direction_deg(gps: Mapping[str, Value]) -> float | None:
    return _number(gps, "GPSImgDirection") if gps.get("GPSImgDirectionRef") == "T" else None


def _scale(photo: Mapping[str, Value], image_hw: tuple[int, int]) -> float | None:
    """Returns how much the image was enlarged since it was taken; None if it was cut as well."""
    width, height = _number(photo, "PixelXDimension"), _number(photo, "PixelYDimension")
    if not width or not height:
        return 1.0
    scales = sorted(image_hw)[0] / min(width, height), sorted(image_hw)[1] / max(width, height)
    return scales[1] if abs(scales[0] / scales[1] - 1) < _SAME_SHAPE else None


def _calibrated_px(dji: Mapping[str, str]) -> float | None:
    focal_px = _decimal(dji, "CalibratedFocalLength")
    return focal_px if focal_px is not None and focal_px > 0 else None


def _sensor_px(photo: Mapping[str, Value]) -> float | None:
    """Returns the focal length in pixels of the sensor by the distance of these."""
    focal_mm, per_unit = _number(photo, "FocalLength"), _number(photo, "FocalPlaneXResolution")
    unit_mm = _MM_PER_UNIT.get(int(_number(photo, "FocalPlaneResolutionUnit") or 2))
    if not focal_mm or not per_unit or unit_mm is None:
        return None
    return focal_mm * per_unit / unit_mm


def _number(tags: Mapping[str, Value], name: str) -> float | None:
    value = tags.get(name)
    if not isinstance(value, tuple) or not math.isfinite(value[0]):
        return None
    return float(value[0])


def _decimal(properties: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(properties[name])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _time(text: Value | None, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form) if isinstance(text, str) else None
    except ValueError:  # cameras without a clock write spaces or zeros
        return None


def _utc(local: datetime, offset: timedelta) -> datetime | None:
    try:
        return (local - offset).replace(tzinfo=timezone.utc)
    except OverflowError:  # nonsense, before the year 1 or after 9999
        return None
