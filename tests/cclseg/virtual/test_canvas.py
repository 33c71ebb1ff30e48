import numpy as np
import pytest

from cclseg.virtual.canvas import Canvas
from cclseg.virtual.classes import ROAD

SQUARE_M = np.array([(2.0, 3.0), (7.9, 3.0), (7.9, 5.9), (2.0, 5.9)])


def test_a_polygon_paints_the_pixels_whose_centres_it_holds():
    canvas = Canvas(256, 1.0)
    canvas.fill(SQUARE_M, label=ROAD)
    expected = np.ones((256, 256), np.uint8)
    expected[3:6, 2:8] = ROAD
    # OpenCV adds the pixels that the outline touches, at most one beyond the centres.
    assert (canvas.label[3:6, 2:8] == ROAD).all()
    assert (canvas.label != expected).sum() <= 2 * (3 + 6) + 4


@pytest.mark.parametrize("gsd_m", [0.3, 1.0, 2.7])
def test_label_colour_height_and_mask_cover_the_same_pixels(gsd_m):
    canvas = Canvas(256, gsd_m)
    outline = np.array([(20.3, 11.1), (60.7, 18.9), (48.2, 55.5), (9.6, 40.4)])
    canvas.fill(outline, label=ROAD, rgb=(10, 20, 30), height_m=4.0)
    painted = canvas.label == ROAD
    assert painted.any()
    np.testing.assert_array_equal(painted, (canvas.albedo == (30, 20, 10)).all(axis=2))
    np.testing.assert_array_equal(painted, canvas.height_m == 4.0)
    mask, window = canvas.mask_of(outline)
    np.testing.assert_array_equal(painted[window], mask)
    assert painted.sum() == mask.sum()


def test_a_thin_line_is_still_one_pixel_wide():
    canvas = Canvas(256, 2.0)
    canvas.stroke(np.array([(20.0, 101.0), (400.0, 101.0)]), 0.3, label=ROAD)
    assert set((canvas.label == ROAD).sum(axis=0)[12:190]) == {1}


def test_a_line_is_as_wide_as_asked_for():
    canvas = Canvas(256, 0.5)
    canvas.stroke(np.array([(10.0, 60.0), (110.0, 60.0)]), 7.0, label=ROAD)
    assert abs(int((canvas.label[:, 128] == ROAD).sum()) - 14) <= 1


def test_what_lies_beyond_the_scene_is_outside_and_harmless():
    canvas = Canvas(256, 1.0)
    assert canvas.is_outside(SQUARE_M + 300)
    assert not canvas.is_outside(SQUARE_M + 250)
    mask, window = canvas.mask_of(SQUARE_M + 250)
    assert canvas.label[window].shape == mask.shape
