import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cclseg.errors import InputError
from cclseg.metrics import TemporalConsistency
from cclseg.virtual import CLASS_NAMES, PALETTE, Pose, SceneStyle, VirtualFlight
from cclseg.virtual.classes import ROAD

CITY = SceneStyle(urban_density=1.0, road_pattern="grid")
COLOURS_BGR = np.array(PALETTE, np.uint8)[:, ::-1]


@pytest.fixture(scope="module")
def flight():
    return VirtualFlight(7, frames=12, frame_hw=(120, 160), gsd_m=0.9, style=CITY)


def flight_over(flight, image):
    """The same flight over a ground of other colours."""
    other = VirtualFlight(7, frames=12, frame_hw=(120, 160), gsd_m=0.9, style=CITY)
    other.world = dataclasses.replace(flight.world, image=image)
    return other


def test_frames_come_in_order_with_their_truth(flight):
    frames = list(flight)
    assert [frame.index for frame in frames] == list(range(12)) == list(range(len(flight)))
    assert [frame.timestamp_s for frame in frames] == pytest.approx([0.4 * i for i in range(12)])
    for frame in frames:
        assert frame.image.shape == (120, 160, 3)
        assert frame.mask.shape == (120, 160)
        assert frame.image.dtype == frame.mask.dtype == np.uint8
        assert frame.mask.max() < len(PALETTE)


def test_a_frame_is_the_same_alone_and_in_order(flight):
    again = VirtualFlight(7, frames=12, frame_hw=(120, 160), gsd_m=0.9, style=CITY)
    for index in (5, 0):
        alone, before = again.frame(index), flight.frame(index)
        assert alone.pose == before.pose
        np.testing.assert_array_equal(alone.image, before.image)
        np.testing.assert_array_equal(alone.mask, before.mask)


def test_over_flat_colours_image_and_mask_are_one(flight):
    painted = flight_over(flight, COLOURS_BGR[flight.world.label])
    compared = 0
    for pose in painted.poses:
        image, mask = painted.look(pose)
        inner = np.zeros(mask.shape, bool)
        block = mask[1:-1, 1:-1]
        inner[1:-1, 1:-1] = True
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                neighbour = mask[1 + dy : mask.shape[0] - 1 + dy, 1 + dx : mask.shape[1] - 1 + dx]
                inner[1:-1, 1:-1] &= neighbour == block
        # Inside an area of one class, at most thin things between pixel centres differ.
        same = (image == COLOURS_BGR[mask]).all(axis=2)[inner]
        assert same.mean() > 0.995
        compared += same.size
    assert compared > 12 * 5000


def test_the_mask_is_not_shifted_against_the_image(flight):
    roads = np.repeat((flight.world.label == ROAD).astype(np.uint8)[:, :, None] * 255, 3, axis=2)
    over_roads = flight_over(flight, roads)
    seen = 0
    for pose in over_roads.poses:
        image, mask = over_roads.look(pose)
        weight = image[:, :, 0] / 255.0
        # The nearest of four pixels has a weight of 1/4 at least, so a class with more than 3/4
        # of the weight holds the nearest pixel. The margin is OpenCV's fixed-point rounding.
        assert (mask[weight > 0.8] == ROAD).all()
        assert (mask[weight < 0.2] != ROAD).all()
        seen += int((weight > 0.8).sum())
    assert seen > 1000


def test_straight_down_a_pixel_is_gsd_wide_and_the_middle_is_below(flight):
    world = flight.world
    marks = np.zeros_like(world.image)
    centre = np.array([601, 633])  # world pixel, x and y
    marks[centre[1], centre[0]] = 255
    marks[centre[1], centre[0] + 50] = 255
    x_m, y_m = (centre + 0.5) * world.gsd_m
    focal_px = 1.2 * 160
    pose = Pose(float(x_m), float(y_m), focal_px * world.gsd_m, yaw_deg=0.0)
    over = flight_over(flight, marks)
    over.frame_hw = (121, 161)  # odd, so that a pixel lies in the middle
    image, _ = over.look(pose)
    assert np.argwhere(image[:, :, 0] == 255).tolist() == [[60, 80], [60, 130]]


def test_yaw_turns_the_upper_edge_clockwise(flight):
    world = flight.world
    marks = np.zeros_like(world.image)
    marks[600, 640:700] = 255  # right of the camera on the map
    over = flight_over(flight, marks)
    over.frame_hw = (121, 161)
    place = (600.5 * world.gsd_m, 600.5 * world.gsd_m, 1.2 * 160 * world.gsd_m)
    image, _ = over.look(Pose(*place, yaw_deg=90.0))
    rows, columns = np.nonzero(image[:, :, 0] > 128)
    assert rows.max() < 60
    assert set(columns) <= {79, 80, 81}


def test_tilts_look_where_they_say(flight):
    world = flight.world
    place = (600.0 * world.gsd_m, 600.0 * world.gsd_m, 1.2 * 160 * world.gsd_m)

    def looked_at(**tilt):
        matrix = flight._ground_of_pixel(Pose(*place, yaw_deg=0.0, **tilt))
        x, y, scale = matrix @ ((160 - 1) / 2, (120 - 1) / 2, 1)
        return x / scale, y / scale

    x, y = looked_at()
    assert looked_at(pitch_deg=2.0)[1] < y - 3
    assert looked_at(roll_deg=2.0)[0] < x - 3


def test_the_camera_keeps_its_speed_and_height():
    flight = VirtualFlight(3, frames=200, frame_hw=(512, 512), speed_m_s=12, interval_s=0.5)
    xy = np.array([(pose.x_m, pose.y_m) for pose in flight.poses])
    steps = np.hypot(*np.diff(xy, axis=0).T)
    np.testing.assert_allclose(steps, 6.0, rtol=0.05)
    altitude = np.array([pose.altitude_m for pose in flight.poses])
    assert np.abs(altitude / (1.2 * 512 * 0.6) - 1).max() <= 0.09
    assert max(abs(pose.roll_deg) for pose in flight.poses) <= 2
    yaw = np.unwrap([np.deg2rad(pose.yaw_deg) for pose in flight.poses])
    assert np.abs(np.diff(yaw)).max() < 0.25


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    frame_hw=st.tuples(st.integers(64, 1400), st.integers(64, 1400)),
    gsd_m=st.floats(0.2, 2.5),
)
def test_no_frame_looks_beyond_the_scene(seed, frame_hw, gsd_m):
    flight = VirtualFlight(seed, frames=40, frame_hw=frame_hw, gsd_m=gsd_m)

    class Extent:
        """The size of the scene without its pixels."""

        gsd_m = flight.gsd_m / 1.1

    flight.world = Extent
    height, width = frame_hw
    corners = np.array(
        [(0, 0, 1), (width - 1, 0, 1), (0, height - 1, 1), (width - 1, height - 1, 1)]
    )
    for pose in flight.poses:
        x, y, scale = flight._ground_of_pixel(pose) @ corners.T
        assert min((x / scale).min(), (y / scale).min()) >= 0
        assert max((x / scale).max(), (y / scale).max()) <= flight._world_px - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"frames": 0}, "frames is 0"),
        ({"frame_hw": (8, 512)}, "sides from 16 px"),
        ({"frame_hw": (6000, 6000)}, "a diagonal up to"),
        ({"gsd_m": 0.01}, "gsd_m is 0.01"),
        ({"interval_s": 0.0}, "a positive speed_m_s and interval_s"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_rendered(arguments, message):
    with pytest.raises(InputError, match=message):
        VirtualFlight(**{"seed": 1, **arguments})


def test_there_is_no_frame_beyond_the_last(flight):
    with pytest.raises(InputError, match="frame 12 of a flight of 12"):
        flight.frame(12)


def test_motion_says_where_the_ground_was_in_the_frame_before(flight):
    before, now = (flight.look(flight.poses[index])[1] for index in (1, 2))
    steadiness = TemporalConsistency(len(CLASS_NAMES))
    steadiness.update(now, before, flight.motion(2))
    assert steadiness.counts.sum() > before.size / 2
    # The masks sample borders half a pixel apart.
    assert steadiness.flicker < 0.05
    still = TemporalConsistency(len(CLASS_NAMES))
    still.update(now, before, np.eye(3))
    assert still.flicker > 3 * steadiness.flicker
