import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg.virtual.noise import fractal_noise, grain, value_noise


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    cell=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_value_noise_has_the_size_asked_for_and_stays_in_range(height, width, cell, seed):
    field = value_noise(np.random.default_rng(seed), (height, width), cell)
    assert field.shape == (height, width)
    assert field.dtype == np.float32
    assert np.abs(field).max() <= 1


def test_value_noise_meets_the_grid_and_is_smooth_between():
    cell = 16
    field = value_noise(np.random.default_rng(3), (64, 64), cell)
    grid = np.random.default_rng(3).random((6, 6), dtype=np.float32) * 2 - 1
    np.testing.assert_allclose(field[::cell, ::cell], grid[:4, :4], atol=1e-6)
    # The steepest fade rises 1.5 per cell, over a difference of at most 2.
    assert np.abs(np.diff(field, axis=0)).max() <= 1.5 * 2 / cell
    assert np.abs(np.diff(field, axis=1)).max() <= 1.5 * 2 / cell


def test_fractal_noise_is_bitwise_the_same_everywhere():
    # Additions and multiplications of numpy alone: this hash holds on every platform.
    field = fractal_noise(np.random.default_rng(7), (65, 33), 24.0, octaves=4)
    digest = hashlib.sha256(np.ascontiguousarray(field).tobytes()).hexdigest()
    assert digest[:16] == "bc0de1f1360cf348"


def test_fractal_noise_stops_at_the_pixel():
    coarse = fractal_noise(np.random.default_rng(1), (32, 32), 2.0, octaves=2)
    same = fractal_noise(np.random.default_rng(1), (32, 32), 2.0, octaves=9)
    np.testing.assert_array_equal(coarse, same)


@pytest.mark.parametrize("size_hw", [(1, 1), (513, 7), (100, 1025)])
def test_grain_covers_any_size_with_unit_deviation(size_hw):
    field = grain(np.random.default_rng(0), size_hw)
    assert field.shape == size_hw
    if field.size > 1000:
        assert abs(float(field.std()) - 1) < 0.05
