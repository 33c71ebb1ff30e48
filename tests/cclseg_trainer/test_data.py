"""Training crops: labels follow pixels, crops follow seeds, rare classes are seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cclseg.dataset import Sample
from cclseg.errors import InputError
from cclseg_trainer.config import AugmentConfig, TrainConfig
from cclseg_trainer.data import CropSampler, Normalisation, photometric

PLAIN = AugmentConfig(photometric=0, blur_share=0, noise_share=0, paste_share=0)


def _sampler(samples, *, augment=PLAIN, classes=3, **changes):
    config = TrainConfig(crop_px=64, batch_size=2, augment=augment, **changes)
    names = tuple("abcdefgh"[:classes])
    return CropSampler(samples, names, ignore_index=255, config=config)


def _coded_sample(height=150, width=200, bands=3, dtype=np.uint8):
    """An image whose value says its class: band value = 60 * class id + 20."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 3 :] = 1
    mask[height // 2 :, width // 2 :] = 2
    image = np.repeat((mask * 60 + 20)[:, :, None], bands, axis=2).astype(dtype)
    return Sample("coded", image, mask)


@pytest.mark.parametrize("bands", [1, 3, 6])
def test_labels_follow_the_pixels_through_every_warp(bands):
    sampler = _sampler([_coded_sample(600, 800, bands=bands)])
    for index in range(20):
        image, mask, _ = sampler.crop(0, index)
        assert image.shape == (bands, 64, 64)
        found = (image[0] * 128 + 127 - 20) / 60
        # Interpolated pixels on class borders differ; everywhere else image and label agree.
        assert (np.abs(found - mask) < 0.05).mean() > 0.85


def test_heights_follow_the_pixels_and_their_gaps_stay_gaps():
    sample = _coded_sample()
    heights = sample.mask * np.float32(10) + 3
    heights[:40, :40] = np.nan
    without = _coded_sample()
    augment = replace(PLAIN, paste_share=0.5)
    sampler = _sampler([replace(sample, heights=heights), without], augment=augment)
    known = 0
    for index in range(20):
        image, mask, found = sampler.crop(0, index)
        assert image.shape == (3, 64, 64)
        assert found.shape == (64, 64)
        is_known = np.isfinite(found)
        known += is_known.sum()
        # Between classes heights are interpolated, as the bands are.
        assert (np.abs(found - (10.0 * mask + 3)) < 0.01)[is_known].sum() >= 0.8 * is_known.sum()
        np.testing.assert_allclose(
            (image[0] * 128 + 127 - 20)[is_known], 6 * (found[is_known] - 3), atol=1e-2
        )
    assert 0 < known < 20 * 64 * 64
    assert sampler.batch(0).heights.shape == (2, 64, 64)
    assert _sampler([without]).batch(0).heights is None


def test_crops_depend_on_seed_step_and_index_alone():
    samples = [_coded_sample()]
    first, second = (_sampler(samples, augment=AugmentConfig()) for _ in range(2))
    second.batch(0)  # what was drawn before must not matter
    for step in (3, 7):
        for a, b in zip(first.batch(step)[:2], second.batch(step)[:2], strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    other = _sampler(samples, augment=AugmentConfig(), seed=2)
    assert not np.array_equal(first.batch(3)[0].numpy(), other.batch(3)[0].numpy())


def test_balanced_crops_show_a_rare_class_often():
    mask = np.zeros((600, 600), np.uint8)
    mask[10:30, 10:30] = 1  # a thousandth of the pixels
    sample = Sample("rare", np.zeros((600, 600, 3), np.uint8), mask)

    def share_with_rare_class(balanced_share):
        augment = replace(PLAIN, balanced_share=balanced_share, scale=(1, 1))
        sampler = _sampler([sample], augment=augment, classes=2)
        return np.mean([(sampler.crop(0, i)[1] == 1).any() for i in range(60)])

    assert share_with_rare_class(0.0) < 0.2
    assert share_with_rare_class(1.0) > 0.9


def test_images_smaller_than_the_crop_are_mirrored_not_padded():
    image, mask, _ = _sampler([_coded_sample(40, 50)]).crop(0, 0)
    assert set(np.unique(mask)) <= {0, 1, 2}
    assert image.min() >= (20 - 127) / 128 - 0.01


def test_virtual_crops_need_data_of_their_kind():
    with pytest.raises(InputError, match="set virtual_share to 0"):
        _sampler([_coded_sample()], augment=replace(PLAIN, virtual_share=0.5))


@pytest.mark.parametrize("bands", [1, 3, 7])
def test_photometric_change_keeps_shape_and_range(bands):
    values = np.random.default_rng(0).random((32, 40, bands)).astype(np.float32)
    config = AugmentConfig(blur_share=1, noise_share=1)
    for seed in range(10):
        changed = photometric(values.copy(), config, np.random.default_rng(seed))
        assert changed.shape == values.shape
        assert changed.dtype == np.float32
        assert 0 <= changed.min() <= changed.max() <= 1


def test_other_than_8_bit_data_are_normalised_by_their_own_statistics():
    rng = np.random.default_rng(0)
    image = rng.normal((1000, 3000), (10, 50), (64, 64, 2)).astype(np.float32)
    normalisation = Normalisation.of([image])
    np.testing.assert_allclose(normalisation.mean, (1000, 3000), rtol=0.01)
    np.testing.assert_allclose(normalisation.std, (10, 50), rtol=0.1)


@pytest.mark.parametrize("kind", ["class_mix_share", "mosaic_share", "paste_share"])
def test_labels_follow_the_pixels_through_every_mixture(kind):
    sampler = _sampler([_coded_sample()], augment=replace(PLAIN, **{kind: 1.0}))
    for index in range(10):
        image, mask, _ = sampler.crop(0, index)
        raw = image[0] * 128 + 127
        close = np.abs(raw - (mask * 60 + 20)) < 1
        assert close.mean() > 0.9  # all but the interpolated borders
