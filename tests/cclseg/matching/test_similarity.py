"""Similarity maps: those of the definitions, on any bands, types and masks."""

import numpy as np
import pytest

from cclseg.matching import ncc, sad, ssd
from cclseg.matching.similarity import similarity

SIZES = [((23, 31), (7, 5)), ((16, 19), (16, 4)), ((12, 9), (12, 9)), ((20, 40), (4, 12))]


def defined(image, template, mask, metric):
    """The definitions of the module, window by window in float64."""
    height, width = mask.shape
    rows, columns = image.shape[0] - height + 1, image.shape[1] - width + 1
    result = np.zeros((rows, columns))
    t = template[mask].astype(np.float64)  # (n, C)
    for row in range(rows):
        for column in range(columns):
            i = image[row : row + height, column : column + width][mask].astype(np.float64)
            if metric == "ssd":
                result[row, column] = ((i - t) ** 2).sum()
            elif metric == "sad":
                result[row, column] = np.abs(i - t).sum()
            else:
                i0, t0 = i - i.mean(axis=0), t - t.mean(axis=0)
                norm = np.sqrt((i0**2).sum() * (t0**2).sum())
                result[row, column] = (i0 * t0).sum() / norm if norm else 0.0
    return result


def scene(size_hw, bands=3, *, seed=0, dtype=np.uint8, high=256):
    rng = np.random.default_rng(seed)
    if dtype == np.float32:
        return rng.normal(0, 1, (*size_hw, bands)).astype(np.float32)
    return rng.integers(0, high, (*size_hw, bands)).astype(dtype)


def hole(size_hw):
    """A mask of a disc, which is neither full nor a rectangle."""
    rows, columns = (np.linspace(-1, 1, length) for length in size_hw)
    return np.hypot(rows[:, None], columns) <= 1.05


@pytest.mark.parametrize(("image_hw", "template_hw"), SIZES)
@pytest.mark.parametrize("bands", [1, 3, 6])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("name", "compute"), [("ncc", ncc), ("ssd", ssd), ("sad", sad)])
def test_maps_are_those_of_the_definition(image_hw, template_hw, bands, masked, name, compute):
    image = scene(image_hw, bands)
    template = scene(template_hw, bands, seed=1).astype(np.float32)
    mask = hole(template_hw) if masked else np.ones(template_hw, np.bool_)
    found = compute(image, template, mask if masked else None)
    assert found.dtype == np.float32
    # float32 results of sums that are computed more precisely
    expected = defined(image, template, mask, name)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("dtype", "high"), [(np.uint16, 65536), (np.float32, 0)])
@pytest.mark.parametrize(("name", "compute"), [("ncc", ncc), ("ssd", ssd), ("sad", sad)])
def test_other_types_are_computed_as_precisely(dtype, high, name, compute):
    image, template = (
        scene(size, seed=seed, dtype=dtype, high=high)
        for seed, size in enumerate([(17, 20), (6, 7)])
    )
    expected = defined(image, template, np.ones((6, 7), np.bool_), name)
    found = compute(image, template.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_ncc_is_blind_to_gain_and_offset_of_each_band():
    image = scene((24, 30), dtype=np.float32)
    template = image[5:13, 7:18]
    gain, offset = np.float32([0.5, 2, 30]), np.float32([-7, 100, 3])
    brighter = template * gain.mean() + offset
    np.testing.assert_allclose(ncc(image, brighter), ncc(image, template), atol=1e-5)
    np.testing.assert_allclose(ncc(image * 7 + offset, template), ncc(image, template), atol=1e-4)


def test_equal_windows_score_one_and_negatives_minus_one():
    image = scene((24, 30))
    template = image[5:13, 7:18].astype(np.float32)
    for metric in ("ncc", "ssd", "sad"):
        mask = np.ones(template.shape[:2], np.bool_)
        scores = similarity(image, template, mask, metric=metric, value_range=255)
        # ssd is the difference of sums as large as 1e7: its root keeps 0.1 of a grey level.
        assert scores[5, 7] == pytest.approx(1, abs=0.1 / 255)
        assert np.unravel_index(scores.argmax(), scores.shape) == (5, 7)
        assert scores.max() <= 1
    assert ncc(image, 255 - template)[5, 7] == pytest.approx(-1, abs=1e-5)


def test_scores_of_differences_are_shares_of_the_range_whatever_the_size():
    for side in (4, 9):
        image, template = np.full((12, 12, 3), 200, np.uint8), np.full((side, side, 3), 149.0)
        mask = np.ones((side, side), np.bool_)
        for metric in ("ssd", "sad"):
            scores = similarity(
                image, template.astype(np.float32), mask, metric=metric, value_range=255
            )
            np.testing.assert_allclose(scores, 1 - 51 / 255, atol=1e-6)


@pytest.mark.parametrize("value", [0, 1, 133, 255])
def test_windows_of_one_colour_correlate_with_nothing(value):
    image = scene((40, 40))
    image[:, 20:] = value
    scores = ncc(image, scene((8, 8), seed=1).astype(np.float32))
    assert np.all(scores[:, 20:] == 0)
    assert np.all(scores[:, :20] != 0)


def test_a_template_of_one_colour_correlates_with_nothing():
    assert not ncc(scene((20, 20)), np.full((5, 5, 3), 90, np.float32)).any()


def test_masked_pixels_do_not_matter():
    image, mask = scene((20, 24)), hole((9, 9))
    template = scene((9, 9), seed=1).astype(np.float32)
    other = np.where(mask[:, :, None], template, 255 - template).astype(np.float32)
    for compute in (ncc, ssd, sad):
        np.testing.assert_array_equal(compute(image, template, mask), compute(image, other, mask))
