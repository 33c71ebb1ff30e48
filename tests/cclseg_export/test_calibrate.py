"""Calibration: what is measured, and where the methods cut a range."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unet import SMOOTH_SPEC, smooth_tiles, write_unet

from cclseg.errors import InputError
from cclseg_export import calibrate as module
from cclseg_export.calibrate import calibrate
from cclseg_export.foreign import load_foreign
from cclseg_export.thresholds import LEVELS, METHODS, threshold

BINS = 2048


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    return load_foreign(write_unet(tmp_path_factory.mktemp("unet") / "unet.onnx"), SMOOTH_SPEC)[0]


def histogram(values, largest=None):
    largest = np.abs(values).max() if largest is None else largest
    return np.histogram(np.abs(values), BINS, (0, largest))[0], float(largest)


def rounding_error(values, end):
    """Mean squared error of symmetric 8-bit numbers up to an end."""
    step = end / LEVELS
    return np.square(np.clip(np.rint(values / step), -LEVELS, LEVELS) * step - values).mean()


def test_the_largest_magnitude_of_each_tensor_is_found(unet):
    tiles = smooth_tiles(3)
    ranges = calibrate(unet, tiles, spec=SMOOTH_SPEC)
    names = list(ranges.magnitudes)
    seen = [np.concatenate([v.ravel() for v in values])
            for values in zip(*module._activations(unet, names, tiles), strict=True)]  # fmt: skip
    for name, values in zip(names, seen, strict=True):
        assert ranges.magnitudes[name] == pytest.approx(np.abs(values).max())
        assert (name in ranges.non_negative) == (values.min() >= 0)
    assert (ranges.method, ranges.tiles, ranges.input_name) == ("minmax", 3, "picture")


def test_a_percentile_keeps_its_share(unet):
    tiles = smooth_tiles(3)
    widest = calibrate(unet, tiles, spec=SMOOTH_SPEC)
    ranges = calibrate(unet, tiles, spec=SMOOTH_SPEC, method="percentile", percentile=99.0)
    names = list(ranges.magnitudes)
    for name, values in zip(names, zip(*module._activations(unet, names, tiles), strict=True),
                            strict=True):  # fmt: skip
        magnitudes = np.abs(np.concatenate([v.ravel() for v in values]))
        expected = np.percentile(magnitudes, 99)
        assert ranges.magnitudes[name] == pytest.approx(
            expected, abs=2 * widest.magnitudes[name] / BINS
        )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_ranges_within_the_largest(unet, method):
    tiles = smooth_tiles(2)
    widest = calibrate(unet, tiles, spec=SMOOTH_SPEC)
    ranges = calibrate(unet, tiles, spec=SMOOTH_SPEC, method=method)
    assert ranges.magnitudes.keys() == widest.magnitudes.keys()
    assert ranges.non_negative == widest.non_negative
    for name, magnitude in ranges.magnitudes.items():
        assert LEVELS / BINS * widest.magnitudes[name] <= magnitude
        assert magnitude <= widest.magnitudes[name] * (1 + 1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["normal", "laplace", "uniform"]))
def test_the_squared_error_is_the_least_that_an_end_can_give(seed, shape):
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 1, 20_000) if shape == "uniform" else getattr(rng, shape)(size=20_000)
    counts, largest = histogram(values)
    chosen = threshold(counts, largest, method="mse")
    ends = np.linspace(0.1, 1, 40) * largest
    best = min(rounding_error(values, end) for end in ends)
    # The rule counts bins and takes rounding errors as evenly spread; both cost a little.
    assert rounding_error(values, chosen) <= 1.1 * best


@pytest.mark.parametrize("method", ["entropy", "percentile", "mse"])
def test_a_lone_outlier_is_cut_off(method):
    values = np.random.default_rng(0).normal(size=2_000_000)
    counts, largest = histogram(np.append(values, 50))
    assert threshold(counts, largest, method=method) < 20


@pytest.mark.parametrize("method", ["entropy", "mse"])
def test_evenly_spread_numbers_are_all_kept(method):
    counts, largest = histogram(np.linspace(-3, 3, 100_001))
    assert threshold(counts, largest, method=method) > 2.9


@pytest.mark.parametrize("method", METHODS)
def test_zeros_alone_have_a_range(method):
    counts, _ = histogram(np.zeros(100), largest=1)
    assert threshold(counts, 1e-6, method=method) == 1e-6


def test_a_tensor_that_is_always_zero_still_has_a_step(unet):
    black = [np.full((1, 3, 64, 96), -127 / 128, np.float32)]
    ranges = calibrate(unet, black, spec=SMOOTH_SPEC)
    assert min(ranges.magnitudes.values()) > 0


def test_the_range_of_8_bit_images_is_known_and_any_other_is_measured(unet):
    tiles = smooth_tiles(2)
    assert calibrate(unet, tiles, spec=SMOOTH_SPEC).input_limits == (-127 / 128, 1)
    assert calibrate(unet, [0.5 * t for t in tiles], spec=SMOOTH_SPEC).input_limits[1] == 1
    reflectances = [5 * tile for tile in tiles]  # 16-bit pixel values
    low, high = calibrate(unet, reflectances, spec=SMOOTH_SPEC).input_limits
    assert low == min(tile.min() for tile in reflectances)
    assert high == max(tile.max() for tile in reflectances)


def test_different_means_share_one_range(unet):
    spec = dataclasses.replace(SMOOTH_SPEC, mean=(100.0, 120.0, 140.0), std=(50.0, 60.0, 70.0))
    low, high = calibrate(unet, smooth_tiles(1), spec=spec).input_limits
    assert (low, high) == pytest.approx((-2.0, 3.1))


@pytest.mark.parametrize(
    ("tiles", "options", "message"),
    [
        ([], {}, "no tiles"),
        (smooth_tiles(1), {"method": "kl"}, "no calibration method 'kl'"),
        (smooth_tiles(1), {"method": "percentile", "percentile": 0.99}, "99.99"),
        ([np.full((1, 3, 64, 96), np.nan, np.float32)], {}, "expected finite numbers"),
    ],
)
def test_what_cannot_be_measured_is_refused(unet, tiles, options, message):
    with pytest.raises(InputError, match=message):
        calibrate(unet, tiles, spec=SMOOTH_SPEC, **options)
