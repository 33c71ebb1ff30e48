"""EXIF and XMP are found where Pillow puts them, and found by Pillow where we put them."""

import io

import cv2
import numpy as np
import pytest

pytest.importorskip("PIL", reason="Pillow is not installed")

from networks import colour_patches
from photos import DJI, SOMEWHERE, exif_of, photo_bytes
from PIL import Image
from PIL.ExifTags import IFD

from cclseg.image_files import encode_image
from cclseg.photo_tags import PhotoTags, find_tags, with_tags

EXIF = exif_of(Make="DJI", Orientation=6, gps=SOMEWHERE)
BLOCK = EXIF.tobytes().removeprefix(b"Exif\0\0")
TAGS = PhotoTags(BLOCK, DJI.encode())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_they_are_found_where_pillow_puts_them(form):
    data = photo_bytes(form, exif=EXIF, xmp=DJI)
    found = find_tags(io.BytesIO(data))
    assert found.exif == BLOCK
    assert found.xmp == (b"" if form == "PNG" and b"XML:com" not in data else DJI.encode())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_file_cut_off_anywhere_gives_what_was_whole(form):
    data = photo_bytes(form, exif=EXIF, xmp=DJI)
    for end in range(0, len(data), 7):
        found = find_tags(io.BytesIO(data[:end]))
        assert BLOCK.startswith(found.exif)


def test_other_files_have_none():
    for data in (b"", b"GIF89a", b"RIFF1234WAVE", bytes(100)):
        assert not find_tags(io.BytesIO(data))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
class TestPutIn:
    def test_others_find_them_and_the_picture_is_the_same(self, suffix):
        plain = encode_image(colour_patches((48, 64)), suffix)
        tagged = with_tags(plain, TAGS)
        with Image.open(io.BytesIO(tagged)) as photo:
            exif = photo.getexif()
            assert exif[0x010F] == "DJI"
            assert exif[0x0112] == 6
            assert dict(exif.get_ifd(IFD.GPSInfo)) == SOMEWHERE
            xmp = photo.info["xmp"]
            assert (xmp if isinstance(xmp, bytes) else xmp.encode()) == DJI.encode()
        same = (
            cv2.imdecode(np.frombuffer(x, np.uint8), cv2.IMREAD_UNCHANGED) for x in (plain, tagged)
        )
        np.testing.assert_array_equal(*same)

    def test_they_are_found_again(self, suffix):
        tagged = with_tags(encode_image(colour_patches((8, 8)), suffix), TAGS)
        assert find_tags(io.BytesIO(tagged)) == TAGS

    def test_nothing_put_in_changes_nothing(self, suffix):
        plain = encode_image(colour_patches((8, 8)), suffix)
        assert with_tags(plain, PhotoTags()) == plain

    def test_damaged_exif_stays_what_it_is(self, suffix):
        plain = encode_image(colour_patches((8, 8)), suffix)
        for exif in (b"II", BLOCK[:20], b"MM\0*\xff\xff\xff\xff"):
            tagged = with_tags(plain, PhotoTags(exif), keep_orientation=False)
            assert find_tags(io.BytesIO(tagged)).exif == exif


def test_no_reader_turns_what_is_to_stay_as_it_is_stored():
    mask = np.arange(48, dtype=np.uint8).reshape(6, 8)
    tagged = with_tags(encode_image(mask, ".png"), TAGS, keep_orientation=False)
    data = np.frombuffer(tagged, np.uint8)
    for flags in (cv2.IMREAD_GRAYSCALE, cv2.IMREAD_UNCHANGED, cv2.IMREAD_ANYDEPTH):
        np.testing.assert_array_equal(cv2.imdecode(data, flags), mask)
    with Image.open(io.BytesIO(tagged)) as photo:
        assert photo.getexif()[0x0112] == 1
        np.testing.assert_array_equal(np.asarray(photo), mask)


def test_blocks_too_large_for_a_jpeg_are_left_out():
    plain = encode_image(colour_patches((8, 8)), ".jpg")
    assert with_tags(plain, PhotoTags(xmp=bytes(70_000))) == plain


@pytest.mark.real_data
def test_the_thumbnail_of_a_real_photo_does_not_go_along(real_data):
    with (real_data / "video" / "DJI_0032_original_4000x2250.jpg").open("rb") as file:
        tags = find_tags(file)
    tagged = with_tags(encode_image(colour_patches((8, 8)), ".jpg"), tags)
    with Image.open(io.BytesIO(tagged)) as photo:
        assert photo.getexif()[0x0110].startswith("FC300S")
        assert not photo.getexif().get_ifd(IFD.IFD1)
        assert b"GimbalPitchDegree" in photo.info["xmp"]
