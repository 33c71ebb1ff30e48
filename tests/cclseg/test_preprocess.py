"""The fast normalisation against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import brightest_band_spec

from cclseg.errors import InputError
from cclseg.preprocess import (
    Normaliser,
    channel_places,
    default_channels,
    mirrored,
    normalised,
    reduced,
)

SPEC = brightest_band_spec(mean=(10.0, 127.0, 131.5), std=(50.0, 60.0, 71.0))

pytestmark = pytest.mark.usefixtures("form")


def random_image(size_hw, bands=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, bands), np.uint8)


def test_the_definition_by_hand():
    image = np.array([[[1, 2, 3]]], np.uint8)  # blue, green, red
    result = normalised(image, SPEC, channels="bgr")
    assert result.shape == (1, 3, 1, 1)
    expected = [(3 - 10) / 50, (2 - 127) / 60, (1 - 131.5) / 71]
    np.testing.assert_allclose(result.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("channels", ["bgr", "rgb", "bands"])
@pytest.mark.parametrize("size_hw", [(1, 1), (7, 13), (64, 33)])
def test_the_fast_form_equals_the_definition_bit_for_bit(channels, size_hw):
    image = random_image(size_hw)
    out = np.empty((3, *size_hw), np.float32)
    normaliser = Normaliser(SPEC)
    normaliser.load(image, channels=channels)
    normaliser.normalise(0, 0, out)
    np.testing.assert_array_equal(out, normalised(image, SPEC, channels=channels)[0])


def test_a_window_equals_the_definition_of_that_window():
    image = random_image((40, 50))
    out = np.empty((3, 16, 24), np.float32)
    normaliser = Normaliser(SPEC)
    normaliser.load(image, channels="bgr")
    normaliser.normalise(12, 20, out)
    expected = normalised(image[12:28, 20:44], SPEC, channels="bgr")[0]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (5, 3), (30, 17)])
def test_beyond_the_edge_the_image_is_mirrored(size_hw):
    image = random_image(size_hw)
    out = np.empty((3, 32, 32), np.float32)
    normaliser = Normaliser(SPEC)
    normaliser.load(image, channels="bgr")
    normaliser.normalise(0, 0, out)
    padding = [(0, 32 - size_hw[0]), (0, 32 - size_hw[1]), (0, 0)]
    expected = normalised(np.pad(image, padding, mode="reflect"), SPEC, channels="bgr")[0]
    np.testing.assert_array_equal(out, expected)


@given(length=st.integers(1, 40), start=st.integers(0, 80), count=st.integers(1, 80))
def test_mirrored_indices_are_those_of_numpy(length, start, count):
    expected = np.pad(np.arange(length), (0, start + count), mode="reflect")[start : start + count]
    np.testing.assert_array_equal(mirrored(start, count, length), expected)


def test_images_of_changing_size_and_order_do_not_mix():
    normaliser = Normaliser(SPEC)
    for seed, (size_hw, channels) in enumerate(
        [((8, 8), "bgr"), ((8, 8), "rgb"), ((8, 12), "rgb"), ((8, 8), "bgr")]
    ):
        image = random_image(size_hw, seed=seed)
        out = np.empty((3, *size_hw), np.float32)
        normaliser.load(image, channels=channels)
        normaliser.normalise(0, 0, out)
        np.testing.assert_array_equal(out, normalised(image, SPEC, channels=channels)[0])


def test_the_image_is_left_as_it_is():
    image = random_image((8, 8))
    before = image.copy()
    normaliser = Normaliser(SPEC)
    normaliser.load(image, channels="bgr")
    normaliser.load(random_image((8, 8), seed=1), channels="bgr")
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("view", [np.s_[:, ::-1], np.s_[::2, ::3], np.s_[:, :, ::-1]])
def test_views_of_images_are_taken_as_they_look(view):
    image = random_image((24, 24))[view]
    out = np.empty((3, *image.shape[:2]), np.float32)
    normaliser = Normaliser(SPEC)
    normaliser.load(image, channels="bgr")
    normaliser.normalise(0, 0, out)
    np.testing.assert_array_equal(out, normalised(image, SPEC, channels="bgr")[0])


def test_many_bands_keep_their_order():
    names = tuple(f"b{i}" for i in range(7))
    spec = brightest_band_spec(bands=names, palette=(), mean=tuple(range(7)), std=(2.0,) * 7)
    image = random_image((6, 5), bands=7)
    out = np.empty((7, 6, 5), np.float32)
    normaliser = Normaliser(spec)
    normaliser.load(image, channels=default_channels(spec))
    normaliser.normalise(0, 0, out)
    np.testing.assert_array_equal(out, normalised(image, spec, channels="bands")[0])


def test_places_follow_the_names_of_the_bands():
    swapped = brightest_band_spec(bands=("green", "blue", "red"))
    assert channel_places(swapped, "bgr") == (1, 0, 2)
    assert channel_places(swapped, "rgb") == (1, 2, 0)
    assert channel_places(swapped, "bands") == (0, 1, 2)


def test_three_nameless_bands_are_red_green_blue():
    spec = brightest_band_spec(bands=("band1", "band2", "band3"))
    assert channel_places(spec, default_channels(spec)) == (2, 1, 0)


def test_colours_for_other_bands_are_refused():
    spec = brightest_band_spec(bands=("red", "green", "nir"))
    assert default_channels(spec) == "bands"
    with pytest.raises(InputError, match="takes the bands red, green, nir"):
        channel_places(spec, "bgr")
    with pytest.raises(InputError, match="expected 'bgr', 'rgb' or 'bands'"):
        channel_places(brightest_band_spec(), "gbr")


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_reduced_images_outlive_a_frame_that_is_written_over(factor):
    frame = random_image((6, 12))
    kept = reduced(frame, factor)
    before = kept.copy()
    frame[:] = 0
    np.testing.assert_array_equal(kept, before)
