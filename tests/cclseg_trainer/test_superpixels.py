"""Superpixels follow what is seen, at two scales, the same way every time."""

import numpy as np
import pytest

from cclseg_trainer.superpixels import SIDES, superpixels


@pytest.mark.parametrize("bands", [1, 3, 6])
def test_they_keep_two_colours_apart(bands):
    values = np.zeros((64, 64, bands), np.float32)
    values[:, 28:] = 0.8
    for scale in superpixels(values, size_hw=(16, 16)):
        assert not set(scale[:, :7].ravel()) & set(scale[:, 7:].ravel())


def test_their_number_follows_their_side():
    y, x = np.mgrid[:128, :128] / 128
    values = np.stack([y, x, y * x], axis=2).astype(np.float32)
    scales = superpixels(values, size_hw=(32, 32))
    counts = [len(np.unique(scale)) for scale in scales]
    for count, side in zip(counts, SIDES, strict=True):
        assert 0.4 * (32 / side) ** 2 <= count <= 1.6 * (32 / side) ** 2
    assert scales.dtype == np.int64
    assert all(scale.min() == 0 for scale in scales)


def test_they_are_the_same_every_time():
    values = np.random.default_rng(1).random((64, 96, 3)).astype(np.float32)
    first, second = (superpixels(values, size_hw=(16, 24)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
