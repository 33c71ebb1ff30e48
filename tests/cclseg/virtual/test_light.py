import numpy as np
import pytest

from cclseg.virtual import SceneStyle
from cclseg.virtual.light import cast_shadows, grade, light_scene, sun_direction


def shadow_of_a_post(azimuth_deg, elevation_deg, gsd_m=1.0):
    height = np.zeros((65, 65), np.float32)
    height[32, 32] = 10.0
    style = SceneStyle(sun_azimuth_deg=azimuth_deg, sun_elevation_deg=elevation_deg)
    return cast_shadows(height, style, gsd_m) > height


def test_the_sun_stands_clockwise_from_the_top():
    assert sun_direction(SceneStyle(sun_azimuth_deg=0)) == pytest.approx((0.0, -1.0))
    assert sun_direction(SceneStyle(sun_azimuth_deg=90)) == pytest.approx((1.0, 0.0))


@pytest.mark.parametrize(
    ("azimuth_deg", "away"), [(0, (1, 0)), (90, (0, -1)), (180, (-1, 0)), (270, (0, 1))]
)
def test_a_shadow_points_away_from_the_sun_and_is_height_over_tangent_long(azimuth_deg, away):
    shadow = shadow_of_a_post(azimuth_deg, 45.0)
    line = [bool(shadow[32 + k * away[0], 32 + k * away[1]]) for k in range(1, 20)]
    # At 45 degrees a post of 10 m reaches the ground 10 m away; the tenth pixel is its very end.
    assert line[:9] == [True] * 9
    assert not any(line[10:])
    assert shadow.sum() in (9, 10)


def test_a_higher_sun_and_larger_pixels_shorten_the_shadow():
    assert shadow_of_a_post(90, 70).sum() < shadow_of_a_post(90, 40).sum()
    assert shadow_of_a_post(90, 45, gsd_m=2.0).sum() in (4, 5)


def test_shadow_is_darker_but_not_black():
    albedo = np.full((65, 65, 3), 200, np.uint8)
    height = np.zeros((65, 65), np.float32)
    height[20:45, 30:34] = 12.0
    style = SceneStyle(sun_azimuth_deg=90, sun_elevation_deg=45)
    image = light_scene(albedo, height, np.ones((65, 65), np.float32), style, 1.0)
    lit, shaded = image[32, 55].mean(), image[32, 24].mean()
    assert lit > 190
    assert 15 < shaded < 0.4 * lit


def test_grade_without_effects_changes_nothing():
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    plain = SceneStyle(saturation=1.0, contrast=1.0, haze=0.0)
    np.testing.assert_array_equal(grade(image, plain), image)


def test_haze_lifts_the_dark_and_saturation_zero_is_grey():
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 2] = 90
    grey = grade(image, SceneStyle(saturation=0.0, contrast=1.0, haze=0.0))
    assert (np.ptp(grey.astype(int), axis=2) <= 1).all()
    assert grade(image, SceneStyle(haze=0.5)).min() > 40
