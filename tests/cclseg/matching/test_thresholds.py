"""Thresholds: where Otsu's definition and the field's libraries put them."""

import math

import cv2
import numpy as np
import pytest

from cclseg.errors import InputError
from cclseg.matching import multi_otsu, otsu
from cclseg.matching.thresholds import cut_at


def two_humps(seed=0, share=0.2):
    rng = np.random.default_rng(seed)
    upper = int(4000 * share)
    return np.concatenate([rng.normal(0.2, 0.07, 4000 - upper), rng.normal(0.8, 0.05, upper)])


def between(scores, cuts):
    """Otsu's variance between classes, on the scores themselves."""
    classes = np.split(np.sort(scores), np.searchsorted(np.sort(scores), sorted(cuts)))
    return sum(len(c) * (c.mean() - scores.mean()) ** 2 for c in classes if len(c)) / len(scores)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05])
def test_the_variance_between_the_classes_is_largest_at_the_cut(share):
    scores = two_humps(share=share)
    cut = otsu(scores)
    step = np.ptp(scores) / 256
    best = between(scores, [cut.value])
    others = [between(scores, [value]) for value in np.arange(scores.min(), scores.max(), step)]
    # Within a bin all scores count as its centre.
    assert best >= max(others) * (1 - 1e-3)
    assert cut.separability == pytest.approx(best / scores.var(), rel=1e-3)
    assert 0.4 < cut.value < 0.65


def test_8_bit_values_are_cut_where_opencv_cuts_them():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(70, 15, 3000), rng.normal(170, 25, 1500)])
    values = np.concatenate([values.clip(0, 255).astype(np.uint8), [0, 255]])
    theirs, _ = cv2.threshold(values.astype(np.uint8), 0, 1, cv2.THRESH_OTSU)
    ours = values >= otsu(values).value
    np.testing.assert_array_equal(ours, values > theirs)


def test_scikit_image_cuts_within_a_bin_of_ours():
    filters = pytest.importorskip("skimage.filters")
    rng = np.random.default_rng(2)
    scores = np.concatenate([rng.normal(m, 0.04, 2000) for m in (0.1, 0.5, 0.85)])
    step = np.ptp(scores) / 256
    assert abs(otsu(scores).value - filters.threshold_otsu(scores)) <= step
    upper = filters.threshold_multiotsu(scores, classes=3)[1]
    assert abs(multi_otsu(scores).value - upper) <= step


def test_three_classes_part_better_than_two_and_the_upper_cut_counts():
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.normal(m, 0.03, 500) for m in (0.1, 0.4, 0.9)])
    assert (scores >= multi_otsu(scores).value).sum() == 500
    assert multi_otsu(scores).separability > otsu(scores).separability


def test_gain_and_offset_of_the_scores_move_the_cut_with_them():
    scores = two_humps()
    for find in (otsu, multi_otsu):
        moved = find(scores * 3 - 5)
        assert moved.value == pytest.approx(
            find(scores).value * 3 - 5, abs=3 * np.ptp(scores) / 256
        )
        assert moved.separability == pytest.approx(find(scores).separability, abs=1e-3)


def test_two_values_are_told_apart_perfectly():
    scores = np.array([0.1] * 30 + [0.7] * 2)
    cut = otsu(scores)
    assert (scores >= cut.value).sum() == 2
    assert cut.separability == pytest.approx(1)


def test_scores_that_are_all_alike_have_no_upper_class(caplog):
    for find in (otsu, multi_otsu):
        cut = find(np.full((4, 5), 0.25))
        assert cut.value > 0.25
        assert cut.separability == 0
    assert "give a number" in caplog.text


def test_a_number_is_taken_as_it_is():
    cut = cut_at(0.8, np.zeros(3))
    assert (cut.value, cut.separability) == (0.8, None)


@pytest.mark.parametrize("threshold", ["osu", math.nan, math.inf])
def test_what_is_no_threshold_is_refused(threshold):
    with pytest.raises(InputError, match="expected 'otsu', 'multi-otsu' or a number"):
        cut_at(threshold, np.zeros(3))


def test_without_scores_there_is_no_threshold():
    with pytest.raises(InputError, match="give a number"):
        otsu(np.zeros(0))
