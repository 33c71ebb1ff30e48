"""What was found, as JSON and as a picture."""

import json

import numpy as np
import pytest

from cclseg.errors import InputError
from cclseg.matching import Found, Place
from cclseg.matching.found import painted
from cclseg.matching.thresholds import Cut

BOX = np.array([(10.0, 30), (40, 30), (40, 50), (10, 50)])


def found(*places, size_hw=(80, 100), mask=None):
    mask = painted(places, size_hw) if mask is None else mask
    return Found(places, mask, np.zeros(size_hw, np.float32), Cut(0.5, 0.75))


def place(*, reference=0, angle_deg=0.0, polygon=BOX):
    x, y = polygon.mean(axis=0)
    return Place(x, y, 0.875, reference, polygon, angle_deg, None if angle_deg is None else 1.0)


def test_upright_boxes_are_painted_to_the_pixel():
    expected = np.zeros((80, 100), np.uint8)
    expected[30:50, 10:40] = 1
    np.testing.assert_array_equal(painted((place(),), (80, 100)), expected)


def test_places_beyond_the_edge_are_painted_as_far_as_they_go():
    assert painted((place(polygon=BOX - (20, 0)),), (80, 100)).sum() == 20 * 20


def test_json_holds_the_threshold_and_every_place():
    content = json.loads(json.dumps(found(place(), place(angle_deg=None)).to_json()))
    assert (content["threshold"], content["separability"]) == (0.5, 0.75)
    assert content["pixels"] == 20 * 30
    assert content["places"][0] == {
        "x": 25.0, "y": 40.0, "angle_deg": 0.0, "scale": 1.0, "score": 0.875, "reference": 0,
        "polygon": BOX.tolist(),
    }  # fmt: skip
    assert content["places"][1]["angle_deg"] is None


def test_a_picture_shows_what_was_found_bright_in_a_box_and_the_rest_dim():
    photo = np.full((80, 100, 3), 150, np.uint8)
    drawn = found(place()).overlay(photo)
    assert drawn.shape == photo.shape
    assert (drawn[75, 90] == 90).all()
    assert (drawn[45, 15] == 150).all()
    assert np.ptp(drawn[30, 10:40].astype(int), axis=1).max() > 100  # the box, in a colour
    assert (photo == 150).all()


def test_references_have_colours_of_their_own():
    photo = np.zeros((80, 100, 3), np.uint8)
    one, other = (found(place(reference=index)).overlay(photo) for index in (0, 1))
    assert (one != other).any()


def test_regions_are_drawn_by_their_outline():
    mask = np.zeros((80, 100), np.uint8)
    mask[30:50, 10:40] = 1
    mask[35:40, 20:30] = 0
    drawn = found(place(angle_deg=None), mask=mask).overlay(np.full((80, 100, 3), 100, np.uint8))
    assert (drawn[30, 12] != 100).any()  # the border
    assert (drawn[37, 25] == 60).all()  # in the hole
    assert (drawn[45, 25] == 100).all()  # in the region


@pytest.mark.parametrize("corner", [(0, 0), (80, 0), (0, 66), (90, 70)])
def test_tags_of_places_at_the_edge_stay_in_the_picture(corner):
    box = np.array([(0.0, 0), (12, 0), (12, 12), (0, 12)]) + corner
    drawn = found(place(polygon=box)).overlay(np.zeros((80, 100, 3), np.uint8))
    tag = (drawn == (60, 230, 255)).all(axis=2)
    assert tag.sum() > 150  # a box around four figures


def test_another_image_is_refused():
    with pytest.raises(InputError, match=r"expected \(80, 100, 3\) uint8"):
        found(place()).overlay(np.zeros((80, 99, 3), np.uint8))
