import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg.attitude import after, between, from_angles, normalized, to_angles, turned

yaws = st.floats(0, 359.999)
pitches = st.floats(-89.9, 89.9)
rolls = st.floats(-179.9, 179.9)
attitudes = st.builds(from_angles, yaws, pitches, rolls)


def apart_deg(first, second):
    """The angle between two attitudes."""
    cosine = abs(sum(a * b for a, b in zip(first, second, strict=True)))
    return math.degrees(2 * math.acos(min(1, cosine)))


@given(yaws, pitches, rolls)
def test_angles_there_and_back(yaw, pitch, roll):
    q = from_angles(yaw, pitch, roll)
    back = to_angles(q)
    assert apart_deg(q, from_angles(*back)) < 1e-5
    assert (back[0] - yaw + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
    assert back[1:] == pytest.approx((pitch, roll), abs=1e-6)


@pytest.mark.parametrize("pitch", [90, -90])
@given(yaws, rolls)
def test_straight_up_and_down_yaw_and_roll_are_told_as_yaw(pitch, yaw, roll):
    q = from_angles(yaw, pitch, roll)
    assert to_angles(q)[1:] == (pitch, 0)
    assert apart_deg(q, from_angles(*to_angles(q))) < 1e-5


@given(attitudes, attitudes, st.floats(0, 1))
def test_the_way_between_two_attitudes_is_the_shortest(first, second, share):
    whole = apart_deg(first, second)
    middle = between(first, second, share)
    assert math.hypot(*middle) == pytest.approx(1, abs=1e-6)
    assert apart_deg(first, middle) == pytest.approx(share * whole, abs=1e-3)
    assert apart_deg(middle, second) == pytest.approx((1 - share) * whole, abs=1e-3)


def test_north_is_no_barrier():
    middle = between(from_angles(350, -30, 0), from_angles(10, -30, 0), 0.5)
    yaw, pitch, _ = to_angles(middle)
    assert (yaw + 180) % 360 - 180 == pytest.approx(0, abs=1e-9)
    assert pitch == pytest.approx(-30)


@given(attitudes, st.tuples(*[st.floats(-1.7, 1.7)] * 3), st.floats(0, 1))
def test_turning_at_a_rate_is_turning_by_the_angle(q, rates, elapsed_s):
    end = turned(q, rates, elapsed_s)
    assert math.hypot(*end) == pytest.approx(1)
    assert apart_deg(q, end) == pytest.approx(
        math.degrees(math.hypot(*rates)) * elapsed_s, abs=1e-3
    )


def test_rates_are_about_the_bodys_own_axes():
    rolled = from_angles(0, 0, 90)  # its right wing points down
    yaw, pitch, roll = to_angles(turned(rolled, (0, math.radians(20), 0), 1))
    assert (yaw, pitch, roll) == pytest.approx((20, 0, 90), abs=1e-9)


def test_a_camera_is_carried_by_its_aircraft():
    camera = after(from_angles(90, 0, 0), from_angles(0, -90, 0))
    assert to_angles(camera) == pytest.approx((90, -90, 0), abs=1e-6)


def test_what_is_no_attitude_is_none():
    assert normalized((0, 0, 0, 0)) is None
    assert normalized((math.nan, 0, 0, 1)) is None
    assert normalized((1.01, 0, 0, 0)) == (1, 0, 0, 0)
