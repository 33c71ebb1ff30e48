import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg.errors import InputError
from cclseg.footprint import REACH, GroundView, cut
from cclseg.pose import Camera, Pose
from cclseg.sources import open_source
from cclseg.virtual.geography import CORNER

SIZE = (720, 1280)
CAMERA = Camera(1000.0, SIZE)


def pose(*, pitch=-90.0, yaw=0.0, roll=0.0, height=100.0, **changes):
    values = {"altitude_m": 500.0, "height_m": height}
    angles = {"yaw_deg": yaw, "pitch_deg": pitch, "roll_deg": roll}
    return Pose(47.0, 8.0, **(values | angles | changes))


def ground(x, y, **angles):
    """East and north of the camera that a pixel shows."""
    return GroundView(pose(**angles), CAMERA, SIZE).local_m(np.array([[x, y]], float))[0, :2]


class TestFlatGround:
    def test_a_camera_that_looks_down_has_north_at_the_top(self):
        np.testing.assert_allclose(ground(640, 360), [0, 0], atol=1e-9)
        np.testing.assert_allclose(ground(0, 0), [-64, 36], atol=1e-9)

    def test_yaw_turns_the_top_of_the_image_clockwise(self):
        np.testing.assert_allclose(ground(640, 0, yaw=90.0), [36, 0], atol=1e-9)

    def test_a_camera_that_looks_ahead_and_down_sees_what_is_ahead(self):
        np.testing.assert_allclose(ground(640, 360, pitch=-45.0, yaw=90.0), [100, 0], atol=1e-9)

    def test_a_roll_to_the_right_shows_what_is_on_the_left(self):
        """The right of the camera goes down, so the rays in its image's upper left rise."""
        east, _ = ground(640, 0, pitch=-60.0, roll=20.0)
        assert east > 0

    def test_the_sampling_distance_grows_with_the_slant(self):
        nadir = GroundView(pose(), CAMERA, SIZE)
        assert nadir.gsd_m == pytest.approx(0.1)
        oblique = GroundView(pose(pitch=-30.0), CAMERA, SIZE)
        assert oblique.gsd_m == pytest.approx(0.2 * math.sqrt(2), rel=1e-4)

    def test_a_smaller_picture_of_the_same_camera_has_the_same_footprint(self):
        half = GroundView(pose(), CAMERA, (360, 640))
        np.testing.assert_allclose(half.local_m(np.array([[0.0, 0.0]]))[0, :2], [-64, 36])

    @given(st.floats(-90, -35), st.floats(0, 360), st.floats(-30, 30), st.floats(10, 500))
    def test_the_area_is_that_of_the_outline(self, pitch, yaw, roll, height):
        view = GroundView(pose(pitch=pitch, yaw=yaw, roll=roll, height=height), CAMERA, SIZE)
        shapely = pytest.importorskip("shapely", reason="shapely is not installed")
        outline = shapely.Polygon(view.local_m(view.frame_ring())[:, :2])
        assert outline.is_valid
        assert view.area_m2(view.frame_ring()) == pytest.approx(outline.area)


class TestHorizon:
    def test_a_frame_with_the_horizon_ends_where_the_reach_does(self):
        view = GroundView(pose(pitch=0.0), CAMERA, SIZE)
        east, north, _ = view.local_m(view.frame_ring()).T
        assert view.shows_horizon
        assert north.max() == pytest.approx(REACH * 100)
        assert np.abs(east).max() <= REACH * 100

    def test_a_frame_without_it_is_whole(self):
        view = GroundView(pose(), CAMERA, SIZE)
        assert not view.shows_horizon
        assert len(view.frame_ring()) == 4

    def test_a_frame_of_the_sky_shows_no_ground(self):
        view = GroundView(pose(pitch=60.0), CAMERA, SIZE)
        assert view.shows_horizon
        assert len(view.frame_ring()) == 0
        assert view.gsd_m is None

    @given(st.floats(-90, 90), st.floats(0, 360), st.floats(-180, 180))
    def test_every_point_of_an_outline_is_on_the_ground_within_reach(self, pitch, yaw, roll):
        view = GroundView(pose(pitch=pitch, yaw=yaw, roll=roll), CAMERA, SIZE)
        ring = view.frame_ring()
        if len(ring):
            local = view.local_m(ring)
            assert np.isfinite(local).all()
            np.testing.assert_allclose(local[:, 2], -100, rtol=1e-9)
            ahead = np.array([math.sin(math.radians(yaw)), math.cos(math.radians(yaw))])
            assert np.abs(local[:, :2] @ ahead).max() <= REACH * 100 * (1 + 1e-6)

    def test_a_pixel_of_the_sky_is_no_place_on_the_ground(self):
        with pytest.raises(InputError, match="shows the sky"):
            GroundView(pose(pitch=0.0), CAMERA, SIZE).local_m(np.array([[640.0, 10.0]]))

    def test_a_cut_keeps_the_side_that_is_asked_for(self):
        square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)
        right = cut(square, np.array([1.0, 0.0, -1.0]))
        assert sorted(map(tuple, right)) == [(1, 0), (1, 2), (2, 0), (2, 2)]


class TestRefusals:
    @pytest.mark.parametrize("height", [None, 0.0, -3.0])
    def test_without_a_height_there_is_no_ground(self, height):
        view = GroundView(pose(height=height), CAMERA, SIZE)
        with pytest.raises(InputError, match="height above ground"):
            view.local_m(view.frame_ring())

    def test_without_an_attitude_there_is_no_view(self):
        with pytest.raises(InputError, match="yaw, pitch and roll"):
            GroundView(pose(pitch_deg=None), CAMERA, SIZE)

    def test_a_frame_of_another_shape_is_refused(self):
        with pytest.raises(InputError, match="same shape"):
            GroundView(pose(), CAMERA, (720, 720))


@pytest.fixture(scope="module")
def source():
    return open_source("virtual:seed=3,frames=12,size=320x240,gsd_m=0.4")


@pytest.fixture(scope="module")
def frames(source):
    return list(source)


class TestVirtualFlight:
    """Frames, poses and scene are exact, so one ground point is one place in every frame."""

    def test_pixels_lie_where_the_scene_has_them(self, source, frames):
        points = np.random.default_rng(0).uniform((0, 0), (320, 240), (50, 2))
        worst_px = 0.0
        for frame, true_pose in zip(frames, source.flight.poses, strict=True):
            view = GroundView(frame.pose, frame.camera, frame.size_hw)
            longitude, latitude = view.lonlat(view.local_m(points)).T
            east, north, _ = CORNER.local(latitude, longitude, 0.0).T
            to_scene = source.flight._ground_of_pixel(true_pose)  # from centres of pixels to those
            centres = np.column_stack([points - 0.5, np.ones(len(points))]) @ to_scene.T
            true_m = (centres[:, :2] / centres[:, 2:] + 0.5) * source.flight.world.gsd_m
            off_m = np.hypot(east - true_m[:, 0], -north - true_m[:, 1])
            worst_px = max(worst_px, off_m.max() / view.gsd_m)
        assert worst_px < 0.1

    def test_consecutive_frames_show_one_class_at_one_place(self, source, frames):
        """Pixels of a frame are found again in the next one by longitude and latitude."""
        for index in range(len(frames) - 1):
            here, there = (frames[i] for i in (index, index + 1))
            row, column = np.mgrid[0:240:3, 0:320:3]
            points = np.column_stack([column.ravel() + 0.5, row.ravel() + 0.5])
            found = pixels_at(there, lonlat_of(here, points))
            inside = ((found >= 0) & (found < (320, 240))).all(axis=1)
            x, y = np.floor(found[inside]).astype(int).T
            mine = source.flight.frame(index).mask[row.ravel(), column.ravel()][inside]
            theirs = source.flight.frame(index + 1).mask
            same = (mine == theirs[y, x]).mean()
            shifted = (mine == np.roll(theirs, 3, axis=1)[y, x]).mean()
            assert inside.mean() > 0.5
            assert same > 0.97  # nearest pixels differ along borders of classes
            assert shifted < same


def lonlat_of(frame, points):
    view = GroundView(frame.pose, frame.camera, frame.size_hw)
    return view.lonlat(view.local_m(points))


def pixels_at(frame, lonlat):
    """The inverse of a view of flat ground, from four points: a homography."""
    height, width = frame.size_hw
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    origin = lonlat_of(frame, corners[:1])[0]
    scale = 1e4
    u, v = ((lonlat_of(frame, corners) - origin) * scale).T
    rows = []
    for (x, y), a, b in zip(corners, u, v, strict=True):
        rows.append([a, b, 1, 0, 0, 0, -x * a, -x * b])
        rows.append([0, 0, 0, a, b, 1, -y * a, -y * b])
    solved = np.append(np.linalg.solve(np.array(rows), corners.ravel()), 1).reshape(3, 3)
    mapped = np.column_stack([(lonlat - origin) * scale, np.ones(len(lonlat))]) @ solved.T
    return mapped[:, :2] / mapped[:, 2:]
