"""What a result says of its mask."""

import cv2
import numpy as np
import pytest
from contracts import item
from networks import brightest_band_spec

from cclseg.errors import InputError, SinkError
from cclseg.image_files import read_mask
from cclseg.result import Segmentation


def result_of(mask, **changes):
    spec = brightest_band_spec(output_stride=1, **changes)
    return Segmentation(mask, np.zeros((3, *mask.shape), np.float32), spec)


@pytest.fixture
def quarters():
    """A mask of four quarters: classes 0, 1, 2 and no data."""
    return np.array([[0, 1], [2, 255]], np.uint8).repeat(10, axis=0).repeat(10, axis=1)


def test_fractions_leave_pixels_without_a_class_out(quarters):
    expected = {"redest": 1 / 3, "greenest": 1 / 3, "blueest": 1 / 3}
    assert result_of(quarters).fractions() == pytest.approx(expected)


def test_fractions_of_nothing_are_zero():
    assert set(result_of(np.full((4, 4), 255, np.uint8)).fractions().values()) == {0.0}


def test_the_overlay_mixes_colours_inside_and_keeps_them_pure_on_borders(quarters):
    frame = np.full((20, 20, 3), 100, np.uint8)
    overlay = result_of(quarters).overlay(frame, alpha=0.5)
    assert overlay[0, 0].tolist() == [65, 65, 150]  # half of grey 100, half of red (30, 30, 200)
    assert overlay[0, 9].tolist() == [30, 30, 200]
    assert overlay[15, 15].tolist() == [100, 100, 100]  # no class: as it was
    assert (frame == 100).all()


def test_an_overlay_of_no_opacity_is_the_frame(quarters):
    frame = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    np.testing.assert_array_equal(result_of(quarters).overlay(frame, alpha=0), frame)


def test_views_of_frames_are_drawn_on_too(quarters):
    frame = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    drawn = result_of(quarters).overlay(frame[:, :, ::-1])
    np.testing.assert_array_equal(drawn, result_of(quarters).overlay(frame[:, :, ::-1].copy()))


@pytest.mark.parametrize(
    "frame", [np.zeros((20, 21, 3), np.uint8), np.zeros((20, 20), np.uint8), np.zeros((20, 20, 3))]
)
def test_an_overlay_on_another_image_is_refused(quarters, frame):
    with pytest.raises(InputError, match=r"expected \(20, 20, 3\) uint8"):
        result_of(quarters).overlay(frame)


def test_an_impossible_opacity_is_refused(quarters):
    with pytest.raises(InputError, match="alpha=2"):
        result_of(quarters).overlay(np.zeros((20, 20, 3), np.uint8), alpha=2)


def test_masks_of_16_bits_are_drawn_too():
    names = tuple(f"class {i}" for i in range(300))
    spec = brightest_band_spec(class_names=names, palette=())
    mask = np.full((8, 8), 299, np.uint16)
    result = Segmentation(mask, np.zeros((300, 2, 2), np.float32), spec)
    drawn = result.overlay(np.zeros((8, 8, 3), np.uint8), alpha=1)
    assert tuple(drawn[0, 0, ::-1]) == spec.palette[299]


def test_a_saved_mask_is_read_back_by_us_and_by_opencv(quarters, tmp_path):
    result_of(quarters).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), quarters)
    np.testing.assert_array_equal(
        cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_UNCHANGED), quarters
    )


def test_only_exact_formats_take_a_mask(quarters, tmp_path):
    with pytest.raises(InputError, match=r"saved as \.png, got mask\.jpg"):
        result_of(quarters).save(tmp_path / "mask.jpg")
    with pytest.raises(SinkError, match="absent"):
        result_of(quarters).save(tmp_path / "absent" / "mask.png")


def test_confidence_is_computed_once_and_lies_in_its_range():
    _, result = item(0)
    assert result.confidence.shape == result.mask.shape
    assert result.confidence is result.confidence
    assert 1 / 3 - 1e-6 <= result.confidence.min() <= result.confidence.max() <= 1


def test_polygons_carry_the_names_of_the_classes(quarters):
    polygons = result_of(quarters).polygons()
    assert [(p.class_name, p.area_px) for p in polygons] == [
        ("redest", 100), ("greenest", 100), ("blueest", 100),
    ]  # fmt: skip


def test_its_text_says_size_and_shares(quarters):
    assert repr(result_of(quarters)) == (
        "<Segmentation 20 x 20: redest 33.3%, greenest 33.3%, blueest 33.3%>"
    )
