"""Enlarging and argmax: the definition by hand, the fast form against the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cclseg import postprocess
from cclseg.errors import InputError
from cclseg.postprocess import class_ids, confidence, enlarged

pytestmark = pytest.mark.usefixtures("form")


@st.composite
def cases(draw):
    """Logits with a stride and a frame size that they may have come from."""
    stride = draw(st.sampled_from([1, 2, 3, 4, 8]))
    classes, rows, columns = (
        draw(st.integers(1, 6)),
        draw(st.integers(1, 20)),
        draw(st.integers(1, 20)),
    )
    size_hw = tuple(
        length * stride - draw(st.integers(0, stride - 1)) for length in (rows, columns)
    )
    seed = draw(st.integers(0, 1000))
    logits = np.random.default_rng(seed).normal(size=(classes, rows, columns)).astype(np.float32)
    return logits, stride, size_hw


def test_enlarging_by_hand():
    logits = np.array([[[0.0, 4.0]]], np.float32)
    expected = [[0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4]]
    result = enlarged(logits, stride=4, size_hw=(2, 8))
    np.testing.assert_array_equal(result, [expected * 2])


def test_enlarging_equals_torch():
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(size=(3, 7, 13)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], scale_factor=4, mode="bilinear", align_corners=False
    )
    result = enlarged(logits, stride=4, size_hw=(28, 52))
    np.testing.assert_allclose(result, expected[0].numpy(), atol=1e-6)


@settings(deadline=None)
@given(cases())
def test_the_class_is_that_of_the_highest_enlarged_logit(case):
    logits, stride, size_hw = case
    full = enlarged(logits, stride=stride, size_hw=size_hw)
    mask = class_ids(logits, stride=stride, size_hw=size_hw)
    assert mask.shape == size_hw
    assert mask.dtype == np.uint8
    chosen = np.take_along_axis(full, mask[None].astype(np.intp), axis=0)[0]
    # Two float32 sums may differ in the last bits, so a near tie may go either way.
    np.testing.assert_allclose(chosen, full.max(axis=0), atol=1e-5)


@settings(deadline=None)
@given(cases())
def test_confidence_is_the_softmax_of_the_winner(case):
    logits, stride, size_hw = case
    full = enlarged(logits, stride=stride, size_hw=size_hw).astype(np.float64)
    expected = (np.exp(full) / np.exp(full).sum(axis=0)).max(axis=0)
    result = confidence(logits, stride=stride, size_hw=size_hw)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("band_pixels", [1, 500, 1 << 30])
def test_bands_of_any_height_give_one_mask(monkeypatch, band_pixels):
    logits = np.random.default_rng(3).normal(size=(4, 33, 21)).astype(np.float32)
    whole = class_ids(logits, stride=4, size_hw=(130, 83))
    sure = confidence(logits, stride=4, size_hw=(130, 83))
    monkeypatch.setattr(postprocess, "_BAND_PIXELS", band_pixels)
    np.testing.assert_array_equal(class_ids(logits, stride=4, size_hw=(130, 83)), whole)
    np.testing.assert_allclose(confidence(logits, stride=4, size_hw=(130, 83)), sure, atol=1e-6)


def test_a_class_that_wins_nowhere_on_the_grid_can_win_between():
    logits = np.array([[[10.0, 0.0]], [[0.0, 10.0]], [[7.0, 7.0]]], np.float32)
    mask = class_ids(logits, stride=8, size_hw=(1, 16))
    assert mask[0, 0] == 0
    assert mask[0, -1] == 1
    assert (mask[0, 7:9] == 2).all()


def test_a_tie_goes_to_the_first_class():
    assert (class_ids(np.ones((3, 2, 2), np.float32), stride=4, size_hw=(8, 8)) == 0).all()


def test_more_than_255_classes_need_16_bits():
    logits = np.zeros((300, 2, 2), np.float32)
    logits[299, 0, 0] = 1
    mask = class_ids(logits, stride=2, size_hw=(4, 4))
    assert mask.dtype == np.uint16
    assert mask[0, 0] == 299


def test_a_frame_beyond_its_logits_is_refused():
    with pytest.raises(InputError, match="do not cover a frame of \\(9, 8\\)"):
        class_ids(np.ones((3, 2, 2), np.float32), stride=4, size_hw=(9, 8))
