"""Polygons are exact: filled again they give the mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cclseg.polygons import polygons_of

MASKS = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3)
)
NAMES = ("a", "b", "c")


def filled(ring, shape):
    """Returns the pixels inside a ring of axis-parallel edges, by the parity of crossings."""
    crossings = np.zeros((shape[0], shape[1] + 1), int)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        assert (x0 == x1) != (y0 == y1), "edges are axis-parallel and have a length"
        if x0 == x1:
            crossings[min(y0, y1) : max(y0, y1), x0] += 1
    return crossings.cumsum(axis=1)[:, :-1] % 2 == 1


def signed_area(ring):
    x, y = ring.astype(int).T
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


@settings(deadline=None, max_examples=200)
@given(MASKS)
def test_filled_again_polygons_give_the_mask(mask):
    rebuilt = np.full(mask.shape, 3, np.uint8)
    for polygon in polygons_of(mask, NAMES):
        inside = filled(polygon.exterior_xy, mask.shape)
        for hole in polygon.holes:
            inside &= ~filled(hole, mask.shape)
        assert inside.sum() == polygon.area_px
        assert (rebuilt[inside] == 3).all()
        rebuilt[inside] = polygon.class_id
    np.testing.assert_array_equal(rebuilt, mask)


@settings(deadline=None)
@given(MASKS)
def test_area_and_direction_of_rings(mask):
    for polygon in polygons_of(mask, NAMES):
        holes = [signed_area(hole) for hole in polygon.holes]
        assert all(area < 0 for area in holes)
        assert signed_area(polygon.exterior_xy) + sum(holes) == polygon.area_px


@settings(deadline=None)
@given(MASKS)
def test_geometry_libraries_take_them_as_they_are(mask):
    shapely = pytest.importorskip("shapely", reason="shapely is not installed")
    for polygon in polygons_of(mask, NAMES):
        shape = shapely.Polygon(polygon.exterior_xy, polygon.holes)
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert shape.area == polygon.area_px


def test_a_bay_that_pixels_touching_at_a_corner_close_is_a_hole():
    mask = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1]], np.uint8)
    (polygon,) = [one for one in polygons_of(mask, NAMES) if one.class_id == 0]
    assert len(polygon.holes) == 1
    assert signed_area(polygon.exterior_xy) == 8


def test_a_square_with_a_hole_by_hand():
    mask = np.full((5, 6), 1, np.uint8)
    mask[1:4, 1:5] = 0
    mask[2, 2] = 1
    square = polygons_of(mask, ("square", "rest"))[0]
    assert (square.class_name, square.area_px) == ("square", 11)
    assert set(map(tuple, square.exterior_xy.tolist())) == {(1, 1), (5, 1), (5, 4), (1, 4)}
    assert len(square.exterior_xy) == 4
    (hole,) = square.holes
    assert set(map(tuple, hole.tolist())) == {(2, 2), (3, 2), (3, 3), (2, 3)}


def test_pixels_that_touch_at_a_corner_are_two_regions():
    assert [p.area_px for p in polygons_of(np.eye(2, dtype=np.uint8), ("off", "on"))] == [
        1,
        1,
        1,
        1,
    ]


def test_large_regions_come_first_and_small_ones_can_be_left_out():
    mask = np.ones((6, 6), np.uint8)
    mask[0, 0] = mask[3:5, 3:5] = 0
    assert [p.area_px for p in polygons_of(mask, ("a", "b"))] == [4, 1, 31]
    assert [p.area_px for p in polygons_of(mask, ("a", "b"), min_area_px=4)] == [4, 31]


@pytest.mark.parametrize("value", [255, 7])
def test_pixels_without_a_class_give_no_polygons(value):
    assert polygons_of(np.full((4, 4), value, np.uint8), NAMES) == []
