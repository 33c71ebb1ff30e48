import numpy as np
import pytest

from cclseg.virtual.plan import Plan, Rect, Warp, circle, densified, rectangle

STRAIGHT = Warp((50.0, 50.0), 0.0, np.zeros((0, 5)))


def test_a_warp_without_waves_or_turn_is_the_identity():
    points = np.array([(0.0, 0.0), (50.0, 50.0), (99.0, 3.0)])
    np.testing.assert_allclose(STRAIGHT(points), points)


def test_a_quarter_turn_moves_right_to_down():
    warp = Warp((0.0, 0.0), np.pi / 2, np.zeros((0, 5)))
    np.testing.assert_allclose(warp(np.array([(1.0, 0.0)])), [(0.0, 1.0)], atol=1e-12)
    angle, stretch = warp.axis((3.0, 4.0), 0.0)
    assert angle == pytest.approx(np.pi / 2)
    assert stretch == pytest.approx(1.0)


def test_a_polar_warp_keeps_lengths_at_its_radius_and_stretches_beyond():
    warp = Warp((0.0, 0.0), 0.0, np.zeros((0, 5)), ring_m=100.0)
    assert warp.axis((10.0, 0.0), 0.0)[1] == pytest.approx(1.0, abs=1e-3)
    assert warp.axis((10.0, 100.0), 0.0)[1] == pytest.approx(2.0, abs=1e-3)
    np.testing.assert_allclose(np.hypot(*warp(np.array([(30.0, -20.0)])).T), [80.0])


def test_densified_keeps_corners_and_leaves_no_long_steps():
    corners = np.array([(0.0, 0.0), (100.0, 0.0), (100.0, 3.0)])
    line = densified(corners, step_m=8.0)
    for corner in corners:
        assert (np.hypot(*(line - corner).T) < 1e-9).any()
    assert np.hypot(*np.diff(line, axis=0).T).max() <= 16.0


def test_a_rect_split_covers_it_without_overlap():
    whole = Rect(0, 0, 10, 4)
    first, second = whole.split(0.3, across=True)
    assert (first.right, second.left) == (3.0, 3.0)
    assert first.width * first.height + second.width * second.height == 40


def test_a_building_is_stretched_with_its_lot_but_not_beyond_a_third():
    plan = Plan(Warp((0.0, 0.0), 0.0, np.zeros((0, 5)), ring_m=100.0))
    for depth in (10.0, 100.0):
        plan.building((0.0, depth), ((0.0, 0.0, 20.0, 10.0),), 6.0)
    lengths = [building.parts[0][2] for building in plan.buildings]
    assert lengths == pytest.approx([22.0, 26.6], abs=0.05)
    assert all(building.parts[0][3] == pytest.approx(10.0) for building in plan.buildings)


def test_rectangle_and_circle_have_the_stated_size():
    corners = rectangle((5.0, 5.0), np.pi / 2, (0.0, 0.0, 4.0, 2.0))
    np.testing.assert_allclose(np.ptp(corners, axis=0), (2.0, 4.0))
    np.testing.assert_allclose(np.hypot(*(circle((1.0, 2.0), 3.0) - (1.0, 2.0)).T), 3.0)
