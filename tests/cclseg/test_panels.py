"""Pictures show what they should, whatever the image's type and bands."""

import numpy as np
import pytest

from cclseg.panels import coloured, marked, photograph, shrunk

PALETTE = ((255, 0, 0), (0, 0, 255))


@pytest.mark.parametrize(
    ("bands", "dtype"),
    [(1, np.uint8), (3, np.uint8), (6, np.float32), (13, np.int16), (2, np.uint16)],
)
def test_any_image_becomes_a_photograph(bands, dtype):
    image = np.arange(4 * 5 * bands).reshape(4, 5, bands).astype(dtype)
    shown = photograph(image)
    assert (shown.shape, shown.dtype) == ((4, 5, 3), np.uint8)


def test_eight_bits_stay_as_they_are_and_change_their_order():
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    np.testing.assert_array_equal(photograph(image), image[:, :, ::-1])


def test_values_that_are_no_numbers_are_black():
    image = np.full((2, 2, 1), 7.0)
    image[0, 0], image[1, 1] = np.nan, 9.0
    shown = photograph(image)
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[1, 1].tolist() == [255, 255, 255]


def test_pixels_without_a_class_are_grey():
    shown = coloured(np.array([[0, 1, 255]], np.uint8), PALETTE)
    assert shown[0].tolist() == [[0, 0, 255], [255, 0, 0], [128, 128, 128]]


def test_marks_lie_on_a_dimmed_image_later_ones_on_top():
    image = np.full((1, 3, 3), 100, np.uint8)
    first, second = np.array([[True, True, False]]), np.array([[False, True, False]])
    shown = marked(image, [(first, (0, 0, 255)), (second, (255, 0, 0))])
    assert shown[0, 0, 2] > shown[0, 0, 0]
    assert shown[0, 1, 0] > shown[0, 1, 2]
    assert len(set(shown[0, 2].tolist())) == 1


def test_shrinking_class_maps_brings_no_new_colours():
    mask = np.random.default_rng(1).integers(0, 2, (97, 131), np.uint8)
    small = shrunk(coloured(mask, PALETTE), 40, classes=True)
    assert small.shape == (30, 40, 3)
    assert {tuple(colour) for colour in small.reshape(-1, 3).tolist()} <= {(0, 0, 255), (255, 0, 0)}
    assert shrunk(small, 400).shape == small.shape
