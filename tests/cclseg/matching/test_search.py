"""Template matching: every object is found once, where it is and as it is turned."""

import math

import cv2
import numpy as np
import pytest
from parking import CAR_WH, CARS, crop_of, parking

from cclseg.errors import InputError
from cclseg.matching import Reference, find_places, search
from cclseg.matching.templates import build_bank

BOX_IOU = 0.3


def turn_between(one, other):
    return abs((one - other + 180) % 360 - 180)


def assert_found(places, cars, *, within_px=2.5, within_deg=7.6):
    assert len(places) == len(cars)
    for x, y, heading in cars:
        place = min(places, key=lambda place: math.hypot(place.x - x, place.y - y))
        assert math.hypot(place.x - x, place.y - y) <= within_px
        assert turn_between(place.angle_deg, heading) <= within_deg


@pytest.mark.parametrize(
    ("metric", "threshold"),
    [("ncc", "otsu"), ("ncc", "multi-otsu"), ("ssd", "otsu"), ("sad", "otsu"), ("ssd", 0.85)],
)
def test_every_car_is_found_once_with_its_heading(metric, threshold):
    image = parking()
    reference = Reference(crop_of(image, CARS[0]))
    found = find_places(image, [reference], metric=metric, threshold=threshold)
    assert_found(found.places, CARS)
    best = found.places[0]
    assert (best.x, best.y, best.angle_deg, best.scale) == (60, 60, 0, 1)
    assert best.score == pytest.approx(1, abs=1e-3)
    assert (found.cut.separability is None) == (threshold == 0.85)


@pytest.mark.parametrize("heading", [0, 17, 90, 133, 180, 268.5])
def test_the_heading_is_found_within_half_a_step_of_the_bank(heading):
    crop = crop_of(parking(), CARS[0])
    image = parking([(70, 65, heading)], size_hw=(130, 140), seed=1)
    place = find_places(image, [Reference(crop)], angles=24, threshold=0.5).places[0]
    assert turn_between(place.angle_deg, heading) <= 7.6


def test_the_size_is_found_among_the_scales():
    image = parking(CARS[:1], size_hw=(120, 130), noise=0)
    crop = crop_of(image, CARS[0])
    scales = (0.75, 1.0, 1.25)
    for scale in scales:
        seen = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        place = find_places(seen, [Reference(crop)], angles=1, scales=scales).places[0]
        assert place.scale == scale
        assert (place.x, place.y) == pytest.approx((60 * scale, 60 * scale), abs=1)
        assert np.ptp(place.polygon_xy, axis=0) == pytest.approx(np.array(CAR_WH) * scale, abs=1)


def test_gain_and_offset_of_the_image_do_not_matter_to_ncc():
    image = parking()
    crop = crop_of(image, CARS[0])
    darker = cv2.convertScaleAbs(image, alpha=0.6, beta=20)
    places = [
        find_places(seen, [Reference(crop)], threshold=0.5).places for seen in (image, darker)
    ]
    for one, other in zip(*places, strict=True):
        assert (one.x, one.y, one.angle_deg) == (other.x, other.y, other.angle_deg)
        assert other.score == pytest.approx(one.score, abs=0.01)


def test_the_polygon_is_the_crop_turned():
    image = parking()
    found = find_places(image, [Reference(crop_of(image, CARS[0]))], threshold=0.5)
    for place in found.places:
        upper_left, upper_right, lower_right, lower_left = place.polygon_xy
        up = (upper_left + upper_right) / 2 - (place.x, place.y)
        assert math.hypot(*up) == pytest.approx(CAR_WH[1] / 2)
        assert turn_between(math.degrees(math.atan2(up[0], -up[1])), place.angle_deg) < 1e-6
        assert math.hypot(*(upper_right - upper_left)) == pytest.approx(CAR_WH[0])
        np.testing.assert_allclose(lower_right - lower_left, upper_right - upper_left)
    upright = found.places[0].polygon_xy.tolist()
    assert upright == [[49, 40], [71, 40], [71, 80], [49, 80]]


def test_the_mask_holds_the_boxes():
    image = parking()
    found = find_places(image, [Reference(crop_of(image, CARS[0]))], threshold=0.7)
    assert found.mask.dtype == np.uint8
    assert found.mask.shape == image.shape[:2]
    area = len(found.places) * CAR_WH[0] * CAR_WH[1]
    assert found.mask.sum() == pytest.approx(area, rel=0.1)  # edge pixels count whole
    assert found.mask[40:80, 49:71].all()


def test_a_mask_takes_the_ground_out_of_the_crop():
    image = parking()
    crop = crop_of(image, CARS[0])
    mask = np.zeros(crop.shape[:2], np.uint8)
    mask[3:37, 3:19] = 255
    crop[mask == 0] = 255
    plain = find_places(image, [Reference(crop)], threshold=0.0).places[0]
    masked = find_places(image, [Reference(crop, mask)], threshold=0.8)
    assert plain.score < 0.9
    assert masked.places[0].score == pytest.approx(1, abs=1e-3)
    assert_found(masked.places, CARS)


def test_several_references_are_looked_for_at_once():
    image = parking()
    car = crop_of(image, CARS[0])
    ground = image[180:210, 20:50]
    found = find_places(image, [Reference(ground), Reference(car)], threshold=0.7)
    assert [place.reference for place in found.places].count(0) == 1
    assert_found([place for place in found.places if place.reference == 1], CARS)


@pytest.mark.parametrize(("bands", "dtype"), [(1, np.uint8), (5, np.uint16), (2, np.float64)])
def test_any_bands_and_types_are_searched(bands, dtype):
    cars = ((60, 60, 0), (140, 60, 90), (100, 130, 210))
    grey = parking(cars, size_hw=(190, 200)).mean(axis=2)
    image = np.stack([grey * (1 + band) for band in range(bands)], axis=2).astype(dtype)
    crop = crop_of(image, cars[0])
    for metric in ("ncc", "ssd", "sad"):
        found = find_places(image, [Reference(crop)], metric=metric, angles=12)
        assert_found(found.places[: len(cars)], cars)


def test_strips_do_not_change_what_is_found(monkeypatch):
    image = parking(size_hw=(700, 120), cars=[(60, 50, 0), (60, 168, 90), (55, 340, 200)])
    reference = Reference(crop_of(image, (60, 50, 0)))
    whole = find_places(image, [reference], angles=8)
    steps = []
    monkeypatch.setattr(search, "_STRIP_PIXELS", 1)
    in_strips = find_places(
        image, [reference], angles=8, on_step=lambda done, total: steps.append((done, total))
    )
    np.testing.assert_allclose(in_strips.scores, whole.scores, atol=1e-5)
    assert [(p.x, p.y, p.angle_deg) for p in in_strips.places] == [
        (p.x, p.y, p.angle_deg) for p in whole.places
    ]
    bank = build_bank([reference], angles=8, scales=(1.0,))
    expected = len(bank) * math.ceil(700 / (4 * max(len(template.mask) for template in bank)))
    assert steps[0] == (0, expected)
    assert steps[-1] == (expected, expected)


def test_no_two_places_overlap_much():
    image = parking()
    found = find_places(image, [Reference(image[150:170, 10:30])], threshold=0.1)
    assert len(found.places) > 20
    for index, one in enumerate(found.places):
        for other in found.places[index + 1 :]:
            both = cv2.intersectConvexConvex(
                np.float32(one.polygon_xy), np.float32(other.polygon_xy)
            )[0]
            assert both / (2 * 400 - both) <= BOX_IOU + 1e-3


def test_an_image_that_is_the_crop_is_one_place():
    image = parking(size_hw=(50, 60), cars=())
    found = find_places(image, [Reference(image)], angles=1, threshold=0.9)
    assert [(place.x, place.y) for place in found.places] == [(30, 25)]
    assert np.isfinite(found.scores).sum() == 1


def test_turned_crops_that_do_not_fit_are_left_out_and_it_is_said(caplog):
    image = parking(size_hw=(50, 200), cars=())
    found = find_places(image, [Reference(image[:, 20:120])], angles=4, threshold=0.9)
    assert [place.angle_deg for place in found.places] == [0]
    assert "2 of 4 turned crops do not fit" in caplog.text


def test_a_ground_of_one_colour_is_no_place():
    image = np.full((80, 90, 3), 120, np.uint8)
    image[20:40, 30:45] = parking()[40:60, 50:65]
    found = find_places(image, [Reference(image[18:42, 28:47])], angles=8)
    assert [(place.x, place.y) for place in found.places] == [(37.5, 30)]


IMAGE = parking(size_hw=(60, 70), cars=())


@pytest.mark.parametrize(
    ("crop", "options", "message"),
    [
        (np.zeros((61, 10, 3), np.uint8), {}, "has 10 x 61 pixels, the image only 70 x 60"),
        (IMAGE[:40, :40], {"scales": (1, 1.6)}, "at scale 1.6 has 64 x 64 pixels"),
        (IMAGE[:9, :9, :1], {}, "has 1 bands, the image 3"),
        (IMAGE[:9, :9].astype(np.float32), {}, "is float32, the image uint8"),
        (np.full((9, 9, 3), 7, np.uint8), {}, "of one colour, with which nothing correlates"),
        (IMAGE[:9, :9], {"scales": (0.1,)}, "at scale 0.1 is 1 x 1 pixels; expected at least 3"),
        (IMAGE[:9, :9], {"scales": (0.0,)}, "expected positive numbers"),
        (IMAGE[:9, :9], {"scales": (1.0, math.nan)}, "expected positive numbers"),
        (IMAGE[:9, :9], {"scales": ()}, "expected positive numbers"),
        (IMAGE[:9, :9], {"angles": 0}, "expected at least 1"),
        (IMAGE[:9, :9], {"metric": "mse"}, "expected 'ncc', 'ssd' or 'sad'"),
        (IMAGE[:9, :9], {"threshold": "ots"}, "expected 'otsu', 'multi-otsu' or a number"),
    ],
)
def test_what_does_not_fit_is_refused_with_advice(crop, options, message):
    with pytest.raises(InputError, match=message):
        find_places(IMAGE, [Reference(crop)], **options)


def test_an_image_with_pixels_that_are_no_numbers_is_refused():
    image = IMAGE.astype(np.float32)
    crop = image[:9, :9].copy()
    image[30, 30] = np.nan
    with pytest.raises(InputError, match="the image holds NaN"):
        find_places(image, [Reference(crop)])


def test_without_references_nothing_is_looked_for():
    with pytest.raises(InputError, match="at least one crop"):
        find_places(IMAGE, [])


@pytest.mark.parametrize(
    ("crop", "mask", "message"),
    [
        (IMAGE[:, :, 0], None, r"is \(60, 70\); expected \(h, w, C\)"),
        (IMAGE[:0], None, "with pixels"),
        (IMAGE, np.ones((3, 3)), r"expected \(60, 70\), the size of the crop"),
        (IMAGE, np.zeros((60, 70)), "is empty"),
    ],
)
def test_a_reference_that_is_none_is_refused(crop, mask, message):
    with pytest.raises(InputError, match=message):
        Reference(crop, mask)
