"""EXIF is read as Pillow reads it, and damage is told."""

import io

import numpy as np
import pytest

pytest.importorskip("PIL", reason="Pillow is not installed")

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from photos import LENS, SOMEWHERE, exif_of
from PIL import Image
from PIL.ExifTags import GPSTAGS, IFD, TAGS

from cclseg.errors import InputError
from cclseg.exif import Exif, read_exif

MARK = b"Exif\0\0"
PILLOWS_NAMES = {
    "PixelXDimension": "ExifImageWidth",
    "PixelYDimension": "ExifImageHeight",
    "SubSecTimeOriginal": "SubsecTimeOriginal",
}


def block(**tags):
    return exif_of(**tags).tobytes().removeprefix(MARK)


def assert_as_pillow_reads_it(data):
    ours, theirs = read_exif(io.BytesIO(data)), Image.Exif()
    theirs.load(data)
    directories = (
        (ours.photo, {TAGS.get(k): v for k, v in theirs.get_ifd(IFD.Exif).items()}),
        (ours.gps, {GPSTAGS.get(k): v for k, v in theirs.get_ifd(IFD.GPSInfo).items()}),
    )
    for found, expected in directories:
        for name, value in found.items():
            other = expected[PILLOWS_NAMES.get(name, name)]
            if isinstance(value, tuple):
                np.testing.assert_allclose(value, np.atleast_1d(np.array(other, float)))
            else:
                assert value == (other.strip("\0 ") if isinstance(other, str) else other)
    return ours


def test_it_reads_what_pillow_writes():
    exif = assert_as_pillow_reads_it(block(Make="DJI", photo=LENS, gps=SOMEWHERE))
    assert exif.image["Make"] == "DJI"
    assert set(exif.photo) == {"FocalLength", "FocalLengthIn35mmFilm"}
    assert exif.gps["GPSLatitudeRef"] == "S"


@given(
    seconds=st.fractions(0, 60, max_denominator=10_000),
    subsecond=st.text("0123456789", min_size=1, max_size=6),
    width=st.integers(1, 1 << 31),
)
def test_any_values_are_those_of_pillow(seconds, subsecond, width):
    gps = SOMEWHERE | {2: (33.0, 51.0, float(seconds))}
    assert_as_pillow_reads_it(block(photo={0x9291: subsecond, 0xA002: width}, gps=gps))


def test_both_orders_of_bytes():
    little = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x0f\x01\x02\0\x04\0\0\0DJI\0" + bytes(4)
    big = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x0f\0\x02\0\0\0\x04DJI\0" + bytes(4)
    assert read_exif(io.BytesIO(little)) == read_exif(io.BytesIO(big)) == Exif({"Make": "DJI"})


def test_what_a_camera_did_not_know_is_left_out():
    data = block(gps=SOMEWHERE)
    assert read_exif(io.BytesIO(data)).gps["GPSAltitude"] == (75.5,)
    above, below = (151).to_bytes(4, "big"), (2).to_bytes(4, "big")
    assert data.count(above + below) == 1
    gps = read_exif(io.BytesIO(data.replace(above + below, above + bytes(4)))).gps
    assert "GPSAltitude" not in gps
    assert "GPSLatitude" in gps


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither II nor MM"),
        (b"JFIF", "neither II nor MM"),
        (b"II+\0\x08\0\0\0", "version 43"),
        (b"II*\0\xff\0\0\0", "damaged"),
        (b"II*\0\x08\0\0\0\xff\xff", "damaged"),
        (b"II*\0\x08\0\0\0\x01\0\x69\x87\x0c\0\xff\xff\xff\xff\0\0\0\0", "expected 1048576"),
    ],
)
def test_damage_is_told(data, message):
    with pytest.raises(InputError, match=message):
        read_exif(io.BytesIO(data))


@given(data=st.data())
def test_any_damage_is_an_input_error_or_harmless(data):
    whole = bytearray(block(Make="DJI", photo=LENS, gps=SOMEWHERE))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        read_exif(io.BytesIO(whole[: data.draw(st.integers(0, len(whole)))]))


@pytest.mark.real_data
def test_real_photos_are_read_as_pillow_reads_them(real_data):
    for path in sorted((real_data / "video" / "frames_brighton_beach").iterdir()):
        with Image.open(path) as photo:
            assert_as_pillow_reads_it(photo.info["exif"].removeprefix(MARK))
