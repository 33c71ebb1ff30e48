"""Crops of several crops: image and label stay together, and nothing is changed in place."""

import numpy as np
import pytest

from cclseg_trainer.mixing import class_mix, mosaic, paste_components


def test_pasted_components_bring_image_and_label():
    target = np.full((64, 64, 3), 10, np.uint8), np.zeros((64, 64), np.uint8)
    donor_mask = np.zeros((64, 64), np.uint8)
    donor_mask[20:30, 20:30] = 1
    donor = np.full((64, 64, 3), 200, np.uint8), donor_mask
    image, mask = paste_components(
        target, donor, classes=np.array([1]), rng=np.random.default_rng(0)
    )
    np.testing.assert_array_equal(mask, donor_mask)
    assert (image[24:26, 24:26] == 200).all()
    assert (image[:15] == 10).all()
    assert (target[1] == 0).all()  # the target itself is left alone


def test_nothing_to_paste_leaves_the_crop():
    target = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    assert (
        paste_components(target, target, classes=np.array([1]), rng=np.random.default_rng(0))
        is target
    )


def _flat(class_id, size=16):
    return np.full((size, size, 3), 10 * (class_id % 25), np.uint8), np.full((size, size), class_id)


def test_half_of_the_classes_are_laid_over():
    donor_mask = np.repeat(np.arange(4), 4)[None].repeat(16, 0)
    donor = (donor_mask[:, :, None].repeat(3, 2) * 10, donor_mask)
    image, mask = class_mix(_flat(9), donor, ignore_index=255, rng=np.random.default_rng(0))
    assert len(set(mask.ravel().tolist()) - {9}) == 2
    np.testing.assert_array_equal(image[:, :, 0], mask * 10)


def test_ignored_pixels_are_no_class_to_lay_over():
    donor = _flat(255)
    image, mask = class_mix(_flat(1), donor, ignore_index=255, rng=np.random.default_rng(0))
    assert set(mask.ravel().tolist()) == {1}
    assert image.max() == 10


@pytest.mark.parametrize("seed", range(5))
def test_four_crops_keep_a_corner_each(seed):
    crops = [_flat(k) for k in range(4)]
    image, mask = mosaic(crops, rng=np.random.default_rng(seed))
    assert [mask[0, 0], mask[0, -1], mask[-1, 0], mask[-1, -1]] == [0, 1, 2, 3]
    np.testing.assert_array_equal(image[:, :, 0], mask * 10)
    assert (crops[0][1] == 0).all()
