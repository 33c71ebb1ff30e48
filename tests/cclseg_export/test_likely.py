"""What is foretold of other images: bounded by draws of those that are there."""

from __future__ import annotations

import numpy as np

from cclseg.metrics import ConfusionMatrix
from cclseg_export.likely import drift_losses, iou_of, likely_losses


def _counts(*, images=6, classes=3, seed=0):
    counts = np.random.default_rng(seed).integers(1, 100, (images, classes, classes))
    return counts + 500 * np.eye(classes, dtype=np.int64)


def test_iou_of_counts_is_that_of_the_metrics():
    matrix = ConfusionMatrix(3)
    matrix.counts += _counts(images=1)[0]
    np.testing.assert_allclose(iou_of(matrix.counts), matrix.iou)


def test_where_all_images_are_alike_the_likely_loss_is_the_loss():
    before, after = _counts(images=1).repeat(7, axis=0), _counts(images=1, seed=1).repeat(7, axis=0)
    expected = 100 * (iou_of(before[0]) - iou_of(after[0]))
    for confidence in (0.1, 0.9):
        np.testing.assert_allclose(likely_losses(before, after, confidence=confidence), expected)


def test_more_confidence_bounds_more():
    before, after = _counts(), _counts(seed=1)
    bounds = [likely_losses(before, after, confidence=c) for c in (0.1, 0.5, 0.9, 0.99)]
    assert (np.diff(bounds, axis=0) > 0).all()
    measured = 100 * (iou_of(before.sum(axis=0)) - iou_of(after.sum(axis=0)))
    assert (bounds[0] < measured).all()
    assert (measured < bounds[-1]).all()


def test_a_class_that_no_image_shows_has_no_loss():
    before = _counts()
    before[:, 2] = before[:, :, 2] = 0
    likely = likely_losses(before, before, confidence=0.9)
    np.testing.assert_array_equal(likely, [0, 0, np.nan])


def test_a_class_that_shrinks_or_grows_may_lose_that_share_of_its_iou():
    pairs = np.array([[[96, 4, 0], [0, 100, 0], [0, 0, 0]]]).repeat(5, axis=0)
    iou = np.array([0.5, 0.25, np.nan])
    drifts = drift_losses(pairs, iou)
    np.testing.assert_allclose(drifts, [100 * 0.5 * 0.04, 100 * 0.25 * 0.04, np.nan])


def test_flips_in_both_directions_are_no_drift():
    pairs = np.array([[[90, 10], [10, 90]]]).repeat(5, axis=0)
    np.testing.assert_array_equal(drift_losses(pairs, np.ones(2)), [0, 0])


def test_near_ties_that_flip_to_either_side_by_chance_are_no_drift_of_all_images():
    pairs = np.array([[[90, 10], [0, 100]], [[100, 0], [10, 90]]])
    np.testing.assert_array_equal(drift_losses(pairs, np.ones(2)), [0, 0])


def test_what_shifts_alike_in_every_image_is_a_drift_however_few_they_are():
    """Labels forgave a network that leaned like this on 11 images, and not on others."""
    pairs = np.array([[[96, 4], [0, 100]]])
    for images in (1, 11):
        (shrinking, _) = drift_losses(pairs.repeat(images, axis=0), np.ones(2))
        assert shrinking == 4
