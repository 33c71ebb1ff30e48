"""The shift of the logits: classes keep their shares, whatever moved them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg_export.bias import matching_shift


def _logits(classes=4, pixels=4000, seed=0):
    return np.random.default_rng(seed).normal(size=(classes, pixels)).astype(np.float32)


def _shares(logits):
    return np.bincount(logits.argmax(axis=0), minlength=len(logits)) / logits.shape[1]


@given(st.lists(st.floats(-0.5, 0.5), min_size=4, max_size=4), st.floats(0.1, 100))
def test_a_shift_of_all_pixels_is_found_at_any_scale(moved, scale):
    before = scale * _logits()
    after = before + scale * np.array(moved)[:, None]
    expected = scale * (np.mean(moved) - np.array(moved))
    np.testing.assert_allclose(matching_shift(before, after), expected, atol=1e-4 * scale)


def test_a_shift_of_pixels_that_nearly_tie_is_taken_back_where_the_mean_error_is_not():
    """Sure pixels move one way, unsure ones the other: on average nothing moves."""
    before = _logits(classes=2, pixels=20000)
    margin = before[0] - before[1]
    near = np.abs(margin) < np.median(np.abs(margin))
    after = before.copy()
    after[0] += np.where(near, -0.1, 0.1)
    assert np.mean(after - before) == pytest.approx(0, abs=1e-4)
    drift = np.abs(_shares(after) - _shares(before)).max()
    mended = after + matching_shift(before, after)[:, None]
    assert np.abs(_shares(mended) - _shares(before)).max() < 0.1 * drift


def test_logits_that_say_nothing_are_left_alone():
    constant = np.ones((3, 100), np.float32)
    np.testing.assert_allclose(matching_shift(constant, constant), 0, atol=1e-9)
    one_class = _logits(classes=1)
    np.testing.assert_array_equal(matching_shift(one_class, one_class + 1), [0])


def test_a_class_that_rounding_wiped_out_gets_no_endless_shift():
    before = _logits(classes=3)
    after = before.copy()
    after[1] = -1e3
    assert np.isfinite(matching_shift(before, after)).all()
