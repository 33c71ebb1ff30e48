"""Metrics against counts done by hand and against properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cclseg.errors import InputError
from cclseg.metrics import BoundaryScore, Calibration, ConfusionMatrix, TemporalConsistency


def test_figures_of_a_hand_counted_case():
    # class 0: TP 3, FN 1, FP 1; class 1: TP 2, FN 1, FP 1; one pixel ignored
    label = np.array([[0, 0, 0, 0], [1, 1, 1, 255]], np.uint8)
    mask = np.array([[0, 0, 0, 1], [1, 1, 0, 0]], np.uint8)
    matrix = ConfusionMatrix(2)
    matrix.update(mask, label)
    np.testing.assert_allclose(matrix.iou, [3 / 5, 2 / 4])
    np.testing.assert_allclose(matrix.precision, [3 / 4, 2 / 3])
    np.testing.assert_allclose(matrix.recall, [3 / 4, 2 / 3])
    np.testing.assert_allclose(matrix.f1, [6 / 8, 4 / 6])
    assert matrix.accuracy == pytest.approx(5 / 7)
    assert matrix.miou == pytest.approx(0.55)


def test_classes_that_occur_nowhere_do_not_enter_the_means():
    matrix = ConfusionMatrix(5)
    matrix.update(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))
    assert matrix.miou == 1
    report = matrix.report(("a", "b", "c", "d", "e"))
    assert report["per_class"]["b"]["iou"] is None
    assert report["per_class"]["a"]["iou"] == 1


def test_unanswered_pixels_count_as_misses():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([[0, 255]], np.uint8), np.array([[0, 0]], np.uint8))
    assert matrix.recall[0] == pytest.approx(0.5)
    assert matrix.precision[0] == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_adding_images_equals_one_joined_image(seed, classes):
    rng = np.random.default_rng(seed)
    masks, labels = rng.integers(0, classes, (2, 3, 8, 9)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.2] = 255
    apart, joined = ConfusionMatrix(classes), ConfusionMatrix(classes)
    for mask, label in zip(masks, labels, strict=False):
        apart.update(mask, label)
    joined.update(masks.reshape(24, 9), labels.reshape(24, 9))
    np.testing.assert_array_equal(apart.counts, joined.counts)
    assert apart.pixels.sum() == (labels != 255).sum()


@pytest.mark.parametrize(
    ("mask", "label"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8)),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 7, np.uint8)),
        (np.full((2, 2), 7, np.uint8), np.zeros((2, 2), np.uint8)),
    ],
)
def test_sizes_and_ids_that_do_not_fit_are_refused(mask, label):
    with pytest.raises(InputError, match=r"must agree|out of range"):
        ConfusionMatrix(2).update(mask, label)


def _halves(column):
    mask = np.zeros((20, 20), np.uint8)
    mask[:, column:] = 1
    return mask


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (2, 1.0), (3, 0.0)])
def test_boundaries_match_within_two_pixels(shift, expected):
    score = BoundaryScore()
    score.update(_halves(10 + shift), _halves(10))
    assert score.f_score == expected


def test_boundary_beside_ignored_pixels_does_not_count():
    label = _halves(10)
    label[:, 9:12] = 255
    score = BoundaryScore()
    score.update(_halves(10), label)
    assert np.isnan(score.f_score)


def _moved(down, right):
    """The motion of a camera that has gone so many pixels over still ground."""
    return np.array([[1, 0, right], [0, 1, down], [0, 0, 1]], np.float64)


class TestTemporalConsistency:
    @given(st.integers(-6, 6), st.integers(-6, 6))
    def test_a_camera_over_still_ground_sees_no_flicker(self, down, right):
        ground = np.random.default_rng(0).integers(0, 3, (40, 40), np.uint8)
        before, now = ground[10:26, 10:30], ground[10 + down : 26 + down, 10 + right : 30 + right]
        steadiness = TemporalConsistency(3)
        steadiness.update(now, before, _moved(down, right))
        assert (steadiness.flicker, steadiness.miou) == (0, 1)
        assert steadiness.counts.sum() == (16 - abs(down)) * (20 - abs(right))

    def test_a_change_of_label_counts_once(self):
        before = np.zeros((4, 5), np.uint8)
        now = before.copy()
        now[1, 2] = 1
        steadiness = TemporalConsistency(2)
        steadiness.update(now, before, np.eye(3))
        assert steadiness.flicker == 1 / 20
        assert steadiness.miou == np.mean([19 / 20, 0])

    def test_unless_the_ground_itself_has_changed(self):
        before, now = np.zeros((4, 5), np.uint8), np.ones((4, 5), np.uint8)
        labels = now.copy(), before.copy()
        labels[0][0] = 0  # a row where it has not, and the mask is wrong
        steadiness = TemporalConsistency(2)
        steadiness.update(now, before, np.eye(3), labels=labels)
        assert steadiness.flicker == 1
        assert steadiness.report() == {"consistency_miou": 0, "flicker": 1, "pairs": 1}

    def test_what_only_one_frame_sees_or_knows_counts_nowhere(self):
        before, now = np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8)
        before[0], now[1] = 255, 255
        steadiness = TemporalConsistency(2)
        steadiness.update(now, before, np.eye(3))
        assert steadiness.counts.sum() == 10
        behind = np.diag([1.0, 1.0, -1.0])  # all of it behind the camera
        steadiness.update(now, before, behind)
        assert steadiness.counts.sum() == 10

    def test_a_turn_about_the_centre_finds_the_same_pixels(self):
        before = np.random.default_rng(0).integers(0, 3, (9, 9), np.uint8)
        turned = np.array([[0, -1, 8], [1, 0, 0], [0, 0, 1]], np.float64)
        steadiness = TemporalConsistency(3)
        steadiness.update(np.rot90(before, -1), before, np.linalg.inv(turned))
        assert (steadiness.flicker, steadiness.counts.sum()) == (0, 81)

    def test_without_frames_there_is_no_figure(self):
        assert TemporalConsistency(2).report() == {
            "consistency_miou": None, "flicker": None, "pairs": 0,
        }  # fmt: skip


class TestCalibration:
    def test_the_error_of_a_hand_counted_case(self):
        # 80 %: three of four right; 30 %: one of two. (4 * |.75 - .8| + 2 * |.5 - .3|) / 6
        label = np.array([[0, 0, 0, 1, 1, 0, 255]], np.uint8)
        mask = np.array([[0, 0, 0, 0, 1, 1, 0]], np.uint8)
        sure = np.array([[0.8, 0.8, 0.8, 0.8, 0.3, 0.3, 0.99]], np.float32)
        calibration = Calibration(bins=10)
        calibration.update(mask, sure, label)
        assert calibration.error == pytest.approx((4 * 0.05 + 2 * 0.2) / 6, abs=1e-6)
        assert sum(calibration.report()["pixels"]) == 6

    def test_images_add_up(self):
        rng = np.random.default_rng(0)
        label, mask = rng.integers(0, 3, (2, 8, 9)).astype(np.uint8)
        sure = rng.random((8, 9), np.float32)
        whole, parts = Calibration(), Calibration()
        whole.update(mask, sure, label)
        for half in (slice(0, 4), slice(4, 8)):
            parts.update(mask[half], sure[half], label[half])
        assert whole.report() == parts.report()

    def test_a_network_that_keeps_its_promise_has_no_error(self):
        label = np.zeros((1, 100), np.uint8)
        mask = np.array([[0] * 70 + [1] * 30], np.uint8)
        calibration = Calibration()
        calibration.update(mask, np.full((1, 100), 0.7, np.float32), label)
        assert calibration.error == pytest.approx(0, abs=1e-6)

    def test_full_confidence_falls_into_the_last_bin(self):
        calibration = Calibration(bins=4)
        zeros = np.zeros((1, 2), np.uint8)
        calibration.update(zeros, np.ones((1, 2), np.float32), zeros)
        assert calibration.report()["pixels"] == [0, 0, 0, 2]

    def test_without_pixels_there_is_no_figure(self):
        assert np.isnan(Calibration().error)
        assert Calibration().report()["error"] is None
