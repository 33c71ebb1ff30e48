"""Where photos were taken: of tags that Pillow writes, of real ones, of broken ones."""

import dataclasses
import json
import logging
from datetime import datetime, timezone

import numpy as np
import pytest

pytest.importorskip("PIL", reason="Pillow is not installed")

from contracts import item
from hypothesis import given
from hypothesis import strategies as st
from photos import DJI, LENS, SOMEWHERE, exif_of, photo_bytes
from PIL.ExifTags import GPS, Base

from cclseg import open_sink, open_source
from cclseg.image_files import read_mask
from cclseg.placement import Placement, read_placement
from cclseg.pose import Camera, Pose


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("photos")


@pytest.fixture
def placed(folder):
    def read(*, image_hw=(48, 64), form="JPEG", xmp=None, **tags):
        path = folder / f"photo.{form.lower()}"
        path.write_bytes(photo_bytes(form, exif=exif_of(**tags), xmp=xmp, size_hw=image_hw))
        return read_placement(path, image_hw)

    return read


def without(tags, *names):
    return {name: value for name, value in tags.items() if name not in names}


class TestPose:
    @pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF"])
    def test_position_by_exif_and_attitude_by_dji(self, placed, form):
        pose = placed(gps=SOMEWHERE, xmp=DJI, form=form).pose
        assert pose.latitude_deg == pytest.approx(-33.856900, abs=1e-7)
        assert pose.longitude_deg == pytest.approx(151.215, abs=1e-7)
        assert (pose.altitude_m, pose.height_m) == (75.5, 40.1)
        assert (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == (-42.0, -89.9, 0.5)

    def test_without_dji_it_is_the_position_alone(self, placed):
        pose = placed(gps=SOMEWHERE).pose
        assert pose == Pose(pose.latitude_deg, pose.longitude_deg, altitude_m=75.5)

    @pytest.mark.parametrize(
        ("latitude_ref", "longitude_ref", "signs"),
        [("N", "E", (1, 1)), ("N", "W", (1, -1)), ("S", "E", (-1, 1)), ("S", "W", (-1, -1))],
    )
    def test_the_sides_of_the_earth(self, placed, latitude_ref, longitude_ref, signs):
        sides = {GPS.GPSLatitudeRef: latitude_ref, GPS.GPSLongitudeRef: longitude_ref}
        pose = placed(gps=SOMEWHERE | sides).pose
        assert (np.sign(pose.latitude_deg), np.sign(pose.longitude_deg)) == signs

    def test_below_the_sea(self, placed):
        assert placed(gps=SOMEWHERE | {GPS.GPSAltitudeRef: b"\x01"}).pose.altitude_m == -75.5

    def test_the_altitude_may_come_from_dji(self, placed):
        gps = without(SOMEWHERE, GPS.GPSAltitude)
        assert placed(gps=gps, xmp=DJI).pose.altitude_m == 198.61

    def test_without_a_gimbal_the_image_has_a_direction_and_the_aircraft_a_heading(self, placed):
        xmp = DJI.replace("GimbalYawDegree", "Unknown")
        direction = {GPS.GPSImgDirection: 11.5, GPS.GPSImgDirectionRef: "T"}
        assert placed(gps=SOMEWHERE | direction, xmp=xmp).pose.yaw_deg == 11.5
        magnetic = direction | {GPS.GPSImgDirectionRef: "M"}
        assert placed(gps=SOMEWHERE | magnetic, xmp=xmp).pose.yaw_deg == 39.7

    @pytest.mark.parametrize(
        "gps",
        [
            {},
            without(SOMEWHERE, GPS.GPSLatitude),
            without(SOMEWHERE, GPS.GPSLongitudeRef),
            SOMEWHERE | {GPS.GPSLatitude: (91.0, 0.0, 0.0)},
            SOMEWHERE | {GPS.GPSLatitudeRef: "?"},
            SOMEWHERE | {GPS.GPSLatitude: (0.0,) * 3, GPS.GPSLongitude: (0.0,) * 3},
        ],
    )
    def test_half_a_position_is_none(self, placed, gps):
        assert placed(gps=gps, xmp=DJI).pose is None


class TestCamera:
    def test_by_the_equivalent_for_35_mm(self, placed):
        camera = placed(photo=LENS, Make="DJI", Model="FC300S").camera
        assert camera == Camera(pytest.approx(20 * 80 / np.hypot(36, 24)), (48, 64), "DJI FC300S")

    def test_by_the_distance_of_the_pixels(self, placed):
        sensor = {Base.FocalPlaneXResolution: 8000.0, Base.FocalPlaneResolutionUnit: 3}
        assert placed(photo=LENS | sensor).camera.focal_length_px == pytest.approx(3.61 * 800)

    def test_by_the_calibration(self, placed):
        xmp = DJI.replace(
            "drone-dji:FlightYaw", 'drone-dji:CalibratedFocalLength="3666.6" drone-dji:X'
        )
        assert placed(photo=LENS, xmp=xmp).camera.focal_length_px == 3666.6

    def test_an_image_made_smaller_has_a_shorter_one(self, placed):
        sensor = {Base.FocalPlaneXResolution: 800.0, Base.FocalPlaneResolutionUnit: 4}
        full = {Base.ExifImageWidth: 640, Base.ExifImageHeight: 480}
        camera = placed(photo=LENS | sensor | full).camera
        assert camera.focal_length_px == pytest.approx(3.61 * 80)

    def test_one_that_was_turned_has_the_same(self, placed):
        full = {Base.ExifImageWidth: 640, Base.ExifImageHeight: 480}
        turned = placed(photo=LENS | full, image_hw=(64, 48)).camera
        assert turned.focal_length_px == placed(photo=LENS | full).camera.focal_length_px

    def test_one_that_was_cut_has_none(self, placed):
        full = {Base.ExifImageWidth: 640, Base.ExifImageHeight: 400}
        assert placed(photo=LENS | full).camera is None

    def test_a_focal_length_alone_says_nothing(self, placed):
        assert placed(photo={Base.FocalLength: 3.61}).camera is None


TAKEN = {Base.DateTimeOriginal: "2016:06:23 16:33:41"}


class TestTime:
    def test_with_its_zone_and_fraction(self, placed):
        zone = {Base.OffsetTimeOriginal: "-05:00", Base.SubsecTimeOriginal: "25"}
        expected = datetime(2016, 6, 23, 21, 33, 41, 250_000, timezone.utc)
        assert placed(photo=TAKEN | zone).captured_at == expected

    def test_without_a_zone_it_is_that_of_the_satellites(self, placed):
        gps = {GPS.GPSDateStamp: "2016:06:23", GPS.GPSTimeStamp: (21.0, 33.0, 40.5)}
        expected = datetime(2016, 6, 23, 21, 33, 40, 500_000, timezone.utc)
        assert placed(photo=TAKEN, gps=gps).captured_at == expected

    def test_a_zone_is_not_guessed(self, placed):
        assert placed(photo=TAKEN).captured_at is None

    @pytest.mark.parametrize(
        "taken", ["0000:00:00 00:00:00", "    :  :     :  :  ", "0001:01:01 00:00:00"]
    )
    def test_a_clock_that_was_never_set(self, placed, taken):
        photo = {Base.DateTimeOriginal: taken, Base.OffsetTimeOriginal: "+02:00"}
        assert placed(photo=photo).captured_at is None


class TestDamage:
    @given(data=st.data())
    def test_no_damage_costs_more_than_the_tags(self, folder, data):
        whole = bytearray(photo_bytes(exif=exif_of(photo=LENS, gps=SOMEWHERE), xmp=DJI))
        for _ in range(data.draw(st.integers(1, 6))):
            whole[data.draw(st.integers(2, 1200))] = data.draw(st.integers(0, 255))
        (folder / "damaged.jpg").write_bytes(whole)
        assert isinstance(read_placement(folder / "damaged.jpg", (48, 64)), Placement)

    def test_of_damaged_xmp_the_position_stays(self, placed):
        found = placed(gps=SOMEWHERE, xmp="<x")
        assert found.pose.altitude_m == 75.5
        assert "XMP is damaged" in found.damage[0]

    def test_frames_come_and_the_first_damage_is_told(self, tmp_path, caplog):
        whole = photo_bytes(exif=exif_of(gps=SOMEWHERE), xmp="<x")
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            (tmp_path / name).write_bytes(whole.replace(b"MM\0*", b"MM\0+"))
        with caplog.at_level(logging.WARNING, logger="cclseg.sources.images"):
            frames = list(open_source(tmp_path))
        assert [frame.name for frame in frames] == ["a", "b", "c"]
        (told,) = caplog.messages
        assert "a.jpg: EXIF has the version 43" in told
        assert "XMP is damaged" in told


class TestResults:
    @pytest.fixture
    def frame(self, tmp_path):
        exif = exif_of(
            photo=LENS | TAKEN | {Base.OffsetTimeOriginal: "+00:00"}, gps=SOMEWHERE, Orientation=6
        )
        (tmp_path / "photo.jpg").write_bytes(photo_bytes(exif=exif, xmp=DJI))
        (frame,) = open_source(tmp_path / "photo.jpg")
        return frame

    def test_overlays_and_masks_have_the_place_of_the_photo(self, frame, tmp_path):
        _, result = item(0)
        for name, kind in (("seen", "overlay"), ("masks", "masks")):
            with open_sink(tmp_path / name, kind=kind) as sink:
                sink.write(frame, result)
        for path in (tmp_path / "seen" / "photo.jpg", tmp_path / "masks" / "photo.png"):
            (again,) = open_source(path)
            assert (again.pose, again.camera, again.captured_at) == (
                frame.pose,
                frame.camera,
                frame.captured_at,
            )
        np.testing.assert_array_equal(read_mask(tmp_path / "masks" / "photo.png"), result.mask)

    def test_lines_tell_them(self, frame, tmp_path):
        with open_sink(tmp_path / "a.jsonl") as sink:
            sink.write(frame, item(0)[1])
            sink.write(dataclasses.replace(frame, pose=None, camera=None), item(0)[1])
        first, second = map(json.loads, sink.target.read_text().splitlines())
        assert Pose(**first["pose"]) == frame.pose
        assert first["camera"]["focal_length_px"] == frame.camera.focal_length_px
        assert datetime.fromisoformat(first["captured_at"]) == frame.captured_at
        assert not {"pose", "camera"} & set(second)

    def test_a_photo_that_is_gone_costs_its_tags_and_is_told(self, frame, tmp_path, caplog):
        frame.path.unlink()
        with open_sink(tmp_path / "seen.jpg") as sink:
            sink.write(frame, item(0)[1])
        assert "goes without its tags: No such file" in caplog.text
        assert next(iter(open_source(tmp_path / "seen.jpg"))).pose is None


@pytest.mark.real_data
class TestRealPhotos:
    def test_the_original_of_a_flight(self, real_data):
        (frame,) = open_source(real_data / "video" / "DJI_0032_original_4000x2250.jpg")
        assert frame.pose.latitude_deg == pytest.approx(46 + 50 / 60 + 32.8504 / 3600)
        assert frame.pose.longitude_deg == pytest.approx(-(91 + 59 / 60 + 37.7855 / 3600))
        assert (frame.pose.yaw_deg, frame.pose.pitch_deg, frame.pose.height_m) == (42, -89.9, 40.1)
        assert frame.camera.model == "DJI FC300S"
        # A lens of 94 degrees over the diagonal: 4589 px / (2 tan 47 deg) = 2140 px.
        assert frame.camera.focal_length_px == pytest.approx(2140, rel=0.02)
        assert frame.captured_at is None  # the camera told no zone

    def test_a_flight_made_smaller_flies_on(self, real_data):
        frames = list(open_source(real_data / "video" / "frames_brighton_beach"))
        assert all(frame.camera.image_hw == frame.size_hw == (1125, 2000) for frame in frames)
        places = np.array([(f.pose.latitude_deg, f.pose.longitude_deg) for f in frames])
        steps_m = np.hypot(*(np.diff(places, axis=0) * (111_100, 76_000)).T)
        assert steps_m.max() < 100
        assert all(190 < frame.pose.altitude_m < 210 for frame in frames)
