"""Reference mode: pixels are found whose features point where those of the crops do."""

import numpy as np
import pytest
from networks import STRIDE, block_means

from cclseg.errors import InputError
from cclseg.matching import find_alike, pixel_features, prototype_of

COLOURS = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200), (180, 170, 30)], np.float32)


def quarters(size_hw=(64, 96)):
    """A class map of four rectangles, and logits that are colours at a stride of 4."""
    rows, columns = np.indices(size_hw)
    classes = 2 * (rows >= size_hw[0] // 2) + (columns >= size_hw[1] // 2)
    image = COLOURS[classes].transpose(2, 0, 1)
    return classes, block_means(image[None])[0]


def alike(logits, prototypes, size_hw, **options):
    features = pixel_features(logits, stride=STRIDE, size_hw=size_hw)
    return find_alike(features, prototypes, stride=STRIDE, size_hw=size_hw, **options)


def prototype(colour):
    logits = np.tile(COLOURS[colour][:, None, None], (1, 3, 4))
    return prototype_of(pixel_features(logits, stride=STRIDE, size_hw=(12, 16)), stride=STRIDE)


@pytest.mark.parametrize("threshold", ["otsu", "multi-otsu", 0.9])
def test_the_regions_of_a_reference_are_found(threshold):
    classes, logits = quarters()
    found = alike(logits, [prototype(2)], classes.shape, threshold=threshold)
    # Between two cells the score goes from one to the other: half a cell on either side.
    wrong = found.mask != (classes == 2)
    assert not wrong[:30, :].any()
    assert not wrong[34:, :46].any()
    assert not wrong[34:, 50:].any()
    (place,) = found.places
    assert place.score == pytest.approx(1, abs=1e-6)
    assert (place.x, place.y) == pytest.approx((24, 48), abs=2)
    assert (place.angle_deg, place.scale) == (None, None)


def test_scores_are_the_largest_cosine_with_any_prototype():
    classes, logits = quarters()
    found = alike(logits, [prototype(0), prototype(3)], classes.shape, threshold=0.95)
    assert [place.reference for place in sorted(found.places, key=lambda p: p.x)] == [0, 1]
    centred = COLOURS - COLOURS.mean(axis=1, keepdims=True)
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    for (row, column), colour in zip([(8, 8), (8, 80), (50, 8), (50, 80)], range(4), strict=True):
        expected = max(units[colour] @ units[0], units[colour] @ units[3])
        assert found.scores[row, column] == pytest.approx(expected, abs=1e-5)


def test_an_offset_of_all_logits_does_not_matter():
    classes, logits = quarters()
    moved = logits + np.random.default_rng(0).normal(0, 50, logits.shape[1:]).astype(np.float32)
    one, other = (alike(maps, [prototype(1)], classes.shape) for maps in (logits, moved))
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-4)


def test_the_mask_chooses_the_object_by_shares_of_cells():
    classes, logits = quarters((64, 96))
    features = pixel_features(logits, stride=STRIDE, size_hw=classes.shape)
    for colour in range(4):
        found = prototype_of(features, classes == colour, stride=STRIDE)
        expected = COLOURS[colour] - COLOURS[colour].mean()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    mixed = np.zeros(classes.shape)
    mixed[:4, 46:50] = 1  # half a cell of either colour
    centred = COLOURS[:2] - COLOURS[:2].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(
        prototype_of(features, mixed, stride=STRIDE), centred.mean(axis=0), rtol=1e-5
    )


def test_cells_beyond_the_frame_count_for_nothing():
    logits = np.random.default_rng(0).normal(size=(5, 8, 8)).astype(np.float32)
    features = pixel_features(logits, stride=STRIDE, size_hw=(17, 30))
    assert features.shape == (5, 5, 8)
    np.testing.assert_allclose(features.sum(axis=0), 0, atol=1e-6)
    assert prototype_of(features, np.ones((17, 30)), stride=STRIDE).shape == (5,)
    found = find_alike(
        features, [np.array([1, -1, 0, 0, 0.0])], stride=STRIDE, size_hw=(17, 30), threshold=0.5
    )
    assert found.mask.shape == found.scores.shape == (17, 30)


def test_cells_without_features_are_like_nothing():
    features = np.zeros((3, 4, 4), np.float32)
    features[:, 2:] = np.array([1, -1, 0], np.float32)[:, None, None]
    found = find_alike(
        features, [np.array([2.0, -2, 0])], stride=STRIDE, size_hw=(16, 16), threshold=0.9
    )
    assert found.scores[0].max() == 0
    assert found.scores[-1].min() == pytest.approx(1)


def test_small_regions_are_in_the_mask_but_no_places():
    features = np.zeros((3, 12, 12), np.float32)
    features[0], features[1] = -1, 1
    features[:2, 2:4, 2:4] = np.array([1, -1])[:, None, None]
    features[:2, 6:, 6:] = np.array([1, -1])[:, None, None]
    want = [np.array([1.0, -1, 0])]
    found = find_alike(features, want, stride=STRIDE, size_hw=(48, 48), threshold=0.6)
    assert found.mask[10:14, 10:14].all()
    assert len(found.places) == 1
    every = find_alike(
        features, want, stride=STRIDE, size_hw=(48, 48), threshold=0.6, min_area_px=1
    )
    assert len(every.places) == 2


def test_what_cannot_be_a_prototype_is_refused():
    features = np.ones((3, 4, 4), np.float32)
    features[0] = -2
    with pytest.raises(InputError, match=r"expected the size of the crop, of 4 x 4 cells"):
        prototype_of(features, np.ones((20, 16)), stride=STRIDE)
    with pytest.raises(InputError, match="is empty"):
        prototype_of(features, np.zeros((16, 16)), stride=STRIDE)
    with pytest.raises(InputError, match="cancel out"):
        prototype_of(features * 0, stride=STRIDE)
    with pytest.raises(InputError, match="at least one crop"):
        find_alike(features, [], stride=STRIDE, size_hw=(16, 16))
