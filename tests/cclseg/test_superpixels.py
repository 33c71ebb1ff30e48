"""Superpixels follow the edges of any image and are the same everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import colour_patches

from cclseg.superpixels import superpixels


@given(height=st.integers(1, 40), width=st.integers(1, 40), bands=st.integers(1, 6))
def test_every_pixel_of_any_image_belongs_to_a_cell_around(height, width, bands):
    image = np.random.default_rng(height).integers(0, 256, (height, width, bands), np.uint8)
    ids = superpixels(image, side=7)
    rows, columns = -(-height // 7), -(-width // 7)
    assert ids.shape == (height, width)
    y, x = np.indices(ids.shape) // 7
    assert (np.abs(ids // columns - y) <= 1).all()
    assert (np.abs(ids % columns - x) <= 1).all()
    assert 0 <= ids.min() <= ids.max() < rows * columns


def test_without_any_colour_they_are_the_cells_of_the_grid():
    ids = superpixels(np.full((16, 24, 3), 77, np.uint8), side=8)
    np.testing.assert_array_equal(ids, np.arange(6).reshape(2, 3).repeat(8, 0).repeat(8, 1))


def test_they_do_not_cross_strong_edges():
    edge = np.linspace(21, 40, 48).astype(int)  # slanted, across the cells
    side = np.arange(64) >= edge[:, None]
    ids = superpixels(np.where(side, 220, 30).astype(np.uint8)[:, :, None], side=8)
    mixed = set(ids[side]) & set(ids[~side])
    assert not mixed


def test_the_order_of_the_bands_makes_no_difference():
    image = colour_patches((50, 60))
    turned = np.ascontiguousarray(image[:, :, ::-1])
    same = superpixels(image, side=8) == superpixels(turned, side=8)
    assert same.mean() > 0.999  # sums of bands are rounded in another order


def test_it_finds_what_the_definition_finds():
    """One pixel after the other, with every centre of the cells around."""
    image, side, compactness = colour_patches((20, 27)), 8, 30.0
    rows, columns = 3, 4
    y, x = np.indices(image.shape[:2])
    colours = image / (compactness * 3**0.5)
    features = np.dstack([colours, y / side, x / side]).astype(np.float64)
    padded = np.pad(image, ((0, 4), (0, 5), (0, 0)), mode="edge") / (compactness * 3**0.5)
    y, x = np.indices(padded.shape[:2])
    start = np.dstack([padded, y / side, x / side]).reshape(rows, side, columns, side, 5)
    centres = start.mean(axis=(1, 3))
    for _ in range(4):
        ids = np.empty(image.shape[:2], int)
        for v, u in np.ndindex(ids.shape):
            around = [
                (((features[v, u] - centres[r, c]) ** 2).sum(), r * columns + c)
                for r in range(max(0, v // side - 1), min(rows, v // side + 2))
                for c in range(max(0, u // side - 1), min(columns, u // side + 2))
            ]
            ids[v, u] = min(around)[1]
        for each in np.unique(ids):
            centres[divmod(each, columns)] = features[ids == each].mean(axis=0)
    found = superpixels(image, side=side, compactness=compactness)
    assert (found == ids).mean() > 0.99  # float32 decides near ties otherwise


@pytest.mark.parametrize("compactness", [1.0, 1e4])
def test_compactness_weighs_place_against_colour(compactness):
    image = colour_patches((64, 64), patch=4)
    ids = superpixels(image, side=16, compactness=compactness)
    grid = np.arange(16).reshape(4, 4).repeat(16, 0).repeat(16, 1)
    assert ((ids == grid).mean() > 0.95) == (compactness > 1)
