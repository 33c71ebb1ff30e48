"""EXIF: the tags of a photo that say where, when and through which lens it was taken.

EXIF is a small TIFF file, and a TIFF file is its own EXIF. A few tags of three directories matter
here; nothing else in the file is looked at, so a maker's note that another program has displaced
does no harm. Written out because the runtime needs numpy alone, and because Pillow, with which the
tests compare it, tells of damage through Python's warnings, which belong to the whole process.

Source: CIPA DC-008-2019, sections 4.6.2 to 4.6.6.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias

from .errors import InputError

Value: TypeAlias = "str | bytes | tuple[float, ...]"

_IMAGE = {
    0x010F: "Make", 0x0110: "Model", 0x02BC: "XMP",
    0x8769: "ExifIFDPointer", 0x8825: "GPSInfoIFDPointer",
}  # fmt: skip
_PHOTO = {
    0x9003: "DateTimeOriginal", 0x9011: "OffsetTimeOriginal", 0x9291: "SubSecTimeOriginal",
    0x920A: "FocalLength", 0xA405: "FocalLengthIn35mmFilm",
    0xA20E: "FocalPlaneXResolution", 0xA210: "FocalPlaneResolutionUnit",
    0xA002: "PixelXDimension", 0xA003: "PixelYDimension",
}  # fmt: skip
_GPS = {
    0x01: "GPSLatitudeRef", 0x02: "GPSLatitude", 0x03: "GPSLongitudeRef", 0x04: "GPSLongitude",
    0x05: "GPSAltitudeRef", 0x06: "GPSAltitude", 0x07: "GPSTimeStamp", 0x1D: "GPSDateStamp",
    0x10: "GPSImgDirectionRef", 0x11: "GPSImgDirection",
}  # fmt: skip

# How the numbers of each type are packed; a rational is two of them.
_TEXT, _BYTES, _RATIONALS = 2, (1, 7), (5, 10)
_FORMS = {
    1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d",
}  # fmt: skip
_VALUE_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Exif:
    """The tags that matter, by their names in the standard.

    Texts end before their first zero byte, bytes are as they are, numbers are tuples. A rational
    whose denominator is zero means that the camera did not know, and its tag is left out.

    Attributes:
        image: Of the image as a whole, such as "Make".
        photo: Of how it was taken, such as "FocalLength".
        gps: Of where it was taken, such as "GPSLatitude".
    """

    image: Mapping[str, Value] = field(default_factory=dict)
    photo: Mapping[str, Value] = field(default_factory=dict)
    gps: Mapping[str, Value] = field(default_factory=dict)


def read_exif(file: BinaryIO) -> Exif:
    """Reads EXIF.

    Args:
        file: A TIFF file, or the EXIF block of another image; read where its tags lie only.

    Raises:
        InputError: It is damaged, or neither.
    """
    try:
        file.seek(0)
        order = {b"II": "<", b"MM": ">"}.get(file.read(2))
        if order is None:
            raise InputError("EXIF begins with neither II nor MM; expected a TIFF header")
        magic, start = _unpacked(file, f"{order}HI")
        if magic != 42:
            raise InputError(f"EXIF has the version {magic}; expected 42")
        image = _directory(file, order, start, _IMAGE)
        photo, gps = (
            _directory(file, order, int(pointer[0]), names)
            if isinstance(pointer := image.get(key), tuple)
            else {}
            for key, names in (("ExifIFDPointer", _PHOTO), ("GPSInfoIFDPointer", _GPS))
        )
    except (struct.error, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"EXIF is damaged: {error}; its tags are left out") from error
    return Exif(image, photo, gps)


def _directory(
    file: BinaryIO, order: str, start: int, names: Mapping[int, str]
) -> dict[str, Value]:
    """Reads the tags that have a name."""
    file.seek(start)
    (count,) = _unpacked(file, f"{order}H")
    entries = [_unpacked(file, f"{order}HHI4s") for _ in range(count)]
    found: dict[str, Value] = {}
    for tag, kind, items, place in entries:
        if tag not in names or kind not in _FORMS:
            continue
        value = _value(file, order, kind, items, place)
        if value is not None:
            found[names[tag]] = value
    return found


def _value(file: BinaryIO, order: str, kind: int, items: int, place: bytes) -> Value | None:
    size = struct.calcsize(f"={_FORMS[kind]}") * items
    if size > _VALUE_LIMIT_BYTES:
        raise InputError(f"EXIF has a value of {size} bytes; expected {_VALUE_LIMIT_BYTES} at most")
    data = place[:size]
    if size > 4:
        file.seek(struct.unpack(f"{order}I", place)[0])
        data = file.read(size)
    if kind == _TEXT:
        return data.partition(b"\0")[0].decode(errors="replace").strip()
    if kind in _BYTES:
        return data
    numbers = struct.unpack(f"{order}{_FORMS[kind] * items}", data)
    if kind not in _RATIONALS:
        return tuple(numbers) or None
    if not items or 0 in numbers[1::2]:
        return None
    return tuple(above / below for above, below in zip(numbers[::2], numbers[1::2], strict=True))


def _unpacked(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
