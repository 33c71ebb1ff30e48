"""The bank of templates: crops turned and scaled, and which of their pixels are theirs."""

import numpy as np
import pytest
from parking import CARS, crop_of, parking

from cclseg.matching import Reference
from cclseg.matching.templates import build_bank


def smooth(size_hw, bands=3):
    """A crop of low frequencies, which turning by interpolation hardly changes."""
    rows, columns = (np.linspace(0, 3, length) for length in size_hw)
    planes = [np.sin(rows[:, None] + k) + np.cos(2 * columns - k) for k in range(bands)]
    return np.stack(planes, axis=2).astype(np.float32)


def test_the_bank_holds_every_reference_at_every_scale_and_heading():
    references = [Reference(smooth((20, 30))), Reference(smooth((10, 12)))]
    bank = build_bank(references, angles=6, scales=(1.0, 0.5))
    assert [(t.reference, t.scale, t.angle_deg) for t in bank] == [
        (r, s, a) for r in (0, 1) for s in (1.0, 0.5) for a in (0, 60, 120, 180, 240, 300)
    ]


@pytest.mark.parametrize("bands", [1, 3, 7])
def test_quarter_turns_are_exact_and_clockwise(bands):
    crop = smooth((20, 31), bands)
    bank = build_bank([Reference(crop)], angles=4, scales=(1.0,))
    for quarters, template in enumerate(bank):
        assert template.mask.all()
        # A fraction of a grey level: OpenCV interpolates between equal neighbours.
        np.testing.assert_allclose(template.pixels, np.rot90(crop, -quarters), atol=1e-3)


@pytest.mark.parametrize("angle_step", [8, 24])
def test_turned_masks_cover_the_area_of_the_crop_but_for_its_edge(angle_step):
    for template in build_bank([Reference(smooth((40, 22)))], angles=angle_step, scales=(1.0,)):
        assert 0.85 * 40 * 22 <= template.mask.sum() <= 40 * 22


def test_turned_back_the_valid_pixels_are_those_of_the_crop():
    crop = smooth((33, 47))
    (template,) = build_bank([Reference(crop)], angles=12, scales=(1.0,))[1:2]
    height, width = template.mask.shape
    rows, columns = np.nonzero(template.mask)
    x, y = columns - (width - 1) / 2, rows - (height - 1) / 2
    angle = np.deg2rad(template.angle_deg)
    x, y = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    x, y = x + 23, y + 16
    assert x.min() > -1e-2
    assert x.max() < 46.01
    assert y.min() > -1e-2
    assert y.max() < 32.01
    expected = np.sin(3 * y / 32) + np.cos(2 * 3 * x / 46)
    np.testing.assert_allclose(template.pixels[rows, columns, 0], expected, atol=0.02)


def test_masks_turn_with_their_crops():
    crop = crop_of(parking(), CARS[0])
    mask = np.zeros(crop.shape[:2], np.uint8)
    mask[:10] = 9
    upright, turned = build_bank([Reference(crop, mask)], angles=2, scales=(1.0,))
    np.testing.assert_array_equal(upright.mask, mask > 0)
    np.testing.assert_array_equal(turned.mask, mask[::-1] > 0)


def test_scaled_crops_keep_their_mean():
    crop = crop_of(parking(), CARS[0])
    for template in build_bank([Reference(crop)], angles=1, scales=(0.5, 1.5)):
        assert template.size_wh == (round(22 * template.scale), round(40 * template.scale))
        assert template.pixels.mean() == pytest.approx(crop.mean(), rel=0.02)
