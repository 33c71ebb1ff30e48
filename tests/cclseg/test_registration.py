"""The motion between two frames: found to a fraction of a pixel, or said not to be known."""

import cv2
import numpy as np
import pytest

from cclseg.registration import register

SIZE_HW = (180, 320)


def ground(seed=0, size_hw=(700, 900)):
    """A grey scene with structure of several sizes, as a photograph has."""
    rng = np.random.default_rng(seed)
    layers = []
    for cell in (4, 12, 40):
        rows, columns = (length // cell + 1 for length in size_hw)
        coarse = rng.uniform(0, 255, (rows, columns)).astype(np.float32)
        layers.append(cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_LINEAR))
    return (np.mean(layers, axis=0) * 2 - 128).clip(0, 255).astype(np.uint8)


def camera(shift_xy=(0, 0), *, turn_deg=0.0, zoom=1.0, tilt=0.0):
    """From pixels of a frame to those of the ground."""
    angle = np.deg2rad(turn_deg)
    c, s = zoom * np.cos(angle), zoom * np.sin(angle)
    centre = np.array([[1, 0, -160], [0, 1, -90], [0, 0, 1]])
    moved = np.array([[c, -s, 450 + shift_xy[0]], [s, c, 350 + shift_xy[1]], [tilt, 0, 1]])
    return moved @ centre


def view(scene, matrix, *, noise=3.0, seed=0):
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(scene, matrix, SIZE_HW[::-1], flags=flags)
    grain = np.random.default_rng(seed).normal(0, noise, SIZE_HW)
    return (seen + grain).clip(0, 255).astype(np.uint8)


def error_px(motion, expected):
    """Mean distance of where two homographies send the pixels that both frames show."""
    grid = np.stack(np.meshgrid(np.arange(0, 320, 20), np.arange(0, 180, 20)), -1)
    found, true = (
        cv2.perspectiveTransform(grid.astype(np.float64), matrix) for matrix in (motion, expected)
    )
    seen = ((true >= 0) & (true < (320, 180))).all(axis=-1)
    return np.hypot(*(found - true)[seen].T).mean()


@pytest.mark.parametrize(
    ("moved", "within_px"),
    [
        ({}, 0.05),
        ({"shift_xy": (7.3, -4.6)}, 0.1),
        ({"shift_xy": (3, 2), "turn_deg": 3, "zoom": 1.04}, 0.1),
        ({"shift_xy": (-9, 5), "turn_deg": -8, "zoom": 0.95, "tilt": 2e-4}, 0.2),
        # Frames that a stream skipped: only a good third of the ground is still there.
        ({"shift_xy": (190, 20)}, 0.5),
        ({"shift_xy": (60, -50), "turn_deg": 25}, 1.0),
    ],
)
def test_motion_is_found_through_noise(moved, within_px):
    scene, before, now = ground(), camera(), camera(**moved)
    motion = register(view(scene, before, seed=1), view(scene, now, seed=2))
    assert error_px(motion, np.linalg.inv(before) @ now) < within_px


def test_motion_is_the_same_every_time():
    frames = view(ground(), camera()), view(ground(), camera((5, 5)))
    np.testing.assert_array_equal(register(*frames), register(*frames))


def test_what_moves_on_its_own_does_not_pull():
    scene, motion = ground(), camera((6, 4))
    before, now = view(scene, camera()), view(scene, motion)
    now[60:130, 100:200] = ground(seed=9)[:70, :100]  # a sixth of the frame has changed
    expected = np.linalg.inv(camera()) @ motion
    assert error_px(register(before, now), expected) < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_another_place_is_not_taken_for_the_same(seed):
    assert register(view(ground(seed), camera()), view(ground(seed + 50), camera())) is None


@pytest.mark.parametrize("size_hw", [(1, 1), (6, 8), (180, 320)])
def test_where_nothing_is_seen_nothing_is_claimed(size_hw):
    flat = np.full(size_hw, 90, np.uint8)
    assert register(flat, flat) is None


def test_pure_noise_has_no_motion():
    frames = np.random.default_rng(0).integers(0, 256, (2, *SIZE_HW), np.uint8)
    assert register(*frames) is None


def test_the_recorded_flyover_is_followed_to_a_fifth_of_a_pixel(real_data):
    poses = np.loadtxt(
        real_data / "video" / "flyover_virtual_poses.csv", delimiter=",", skiprows=1
    )[:, 1:].reshape(-1, 2, 3)
    to_frame = [np.vstack([pose, [0, 0, 1]]) for pose in poses]
    video = cv2.VideoCapture(str(real_data / "video" / "flyover_virtual_640x480_25fps.mp4"))
    frames = [cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2GRAY) for _ in range(13)]
    small = [cv2.resize(frame, (320, 240), interpolation=cv2.INTER_AREA) for frame in frames]
    halved = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])
    for before, now in ((0, 1), (0, 4), (0, 12)):
        expected = to_frame[before] @ np.linalg.inv(to_frame[now])
        motion = register(small[before], small[now])
        assert error_px(motion, halved @ expected @ np.linalg.inv(halved)) < 0.2
