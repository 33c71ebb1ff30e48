"""The definition of the local correlation, against naive loops and its own symmetries."""

from __future__ import annotations

import numpy as np
import pytest
from correlation_contract import CorrelationContract, normal_maps
from hypothesis import given
from hypothesis import strategies as st

from cclseg.correlation import autocorrelation, local_correlation
from cclseg.errors import InputError

TERMS = {
    "ncc": lambda u, v: u * v,
    "ssd": lambda u, v: (u - v) ** 2,
    "sad": lambda u, v: abs(u - v),
}


def naive(a, b, *, radius, dilation=1, groups=1, normalize=False, metric="ncc"):
    """The formula, one place, one lag and one channel at a time."""
    batch, channels, height, width = a.shape
    depth, side = channels // groups, 2 * radius + 1
    out = np.zeros((batch, groups * side * side, height, width))
    for n, g, dy, dx, y, x in np.ndindex(batch, groups, side, side, height, width):
        sy, sx = y + (dy - radius) * dilation, x + (dx - radius) * dilation
        inside = 0 <= sy < height and 0 <= sx < width
        total = squares_a = squares_b = 0.0
        for c in range(g * depth, (g + 1) * depth):
            u, v = a[n, c, y, x], b[n, c, sy, sx] if inside else 0.0
            total += TERMS[metric](u, v)
            squares_a += u * u
            squares_b += v * v
        scale = max(squares_a**0.5 * squares_b**0.5, 1e-6) if normalize else depth
        out[n, g * side * side + dy * side + dx, y, x] = total / scale
    return out


@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
@pytest.mark.parametrize("radius", [0, 1, 2])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("metric", "normalize"), [("ncc", False), ("ncc", True), ("ssd", False), ("sad", False)]
)
def test_equals_naive_loops_in_float64(size, radius, dilation, groups, metric, normalize):
    a, b = normal_maps((2, 6, *size), np.float64)
    options = {
        "radius": radius, "dilation": dilation, "groups": groups,
        "normalize": normalize, "metric": metric,
    }  # fmt: skip
    found = local_correlation(a, b, **options)
    # The order of at most 6 summands differs: a few units in the last place.
    np.testing.assert_allclose(found, naive(a, b, **options), rtol=1e-14, atol=1e-14)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    radius=st.integers(0, 2),
    dilation=st.integers(1, 3),
    metric=st.sampled_from(["ncc", "ssd", "sad"]),
)
def test_swapping_the_maps_mirrors_the_window(seed, size, radius, dilation, metric):
    a, b = normal_maps((1, 3, *size), np.float64, seed=seed)
    options = {"radius": radius, "dilation": dilation, "metric": metric}
    there = local_correlation(a, b, **options)
    back = local_correlation(b, a, **options)
    height, width = size
    side = 2 * radius + 1
    for lag in range(side * side):
        dy, dx = (dilation * (step - radius) for step in divmod(lag, side))
        for y in range(max(0, -dy), min(height, height - dy)):
            for x in range(max(0, -dx), min(width, width - dx)):
                mirrored = back[0, side * side - 1 - lag, y + dy, x + dx]
                assert there[0, lag, y, x] == pytest.approx(mirrored, rel=1e-12, abs=1e-12)


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3))
def test_the_cosine_is_bounded_and_free_of_scale(seed, scale):
    a, b = np.random.default_rng(seed).normal(size=(2, 1, 4, 5, 6))
    cosine = local_correlation(a, b, radius=1, normalize=True)
    assert np.abs(cosine).max() <= 1 + 1e-12
    scaled = local_correlation(scale * a, b, radius=1, normalize=True)
    np.testing.assert_allclose(scaled, cosine, rtol=1e-9, atol=1e-12)


def test_autocorrelation_is_one_at_lag_zero_and_the_distances_are_zero_there():
    a, _ = normal_maps((1, 6, 4, 5), np.float64)
    a[:, :, 0, 0] = 1
    np.testing.assert_allclose(autocorrelation(a, radius=1, normalize=True)[:, 4], 1, rtol=1e-12)
    for metric in ("ssd", "sad"):
        assert not autocorrelation(a, radius=1, metric=metric)[:, 4].any()


def test_lags_run_row_by_row_from_the_upper_left():
    a = np.ones((1, 1, 3, 3))
    b = np.arange(9.0).reshape(1, 1, 3, 3)
    assert local_correlation(a, b, radius=1)[0, :, 1, 1].tolist() == list(range(9))


class TestDefinition(CorrelationContract):
    def run(self, a, b, **options):
        return local_correlation(a, b, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "nccc"}, "ncc"),
        ({"metric": "ssd", "normalize": True}, "'ncc' alone"),
        ({"radius": -1}, "0 or more"),
        ({"groups": 3}, "divides"),
    ],
)
def test_refusals_say_what_was_expected(changes, message):
    a = np.zeros((1, 4, 3, 3), np.float32)
    with pytest.raises(InputError, match=message):
        local_correlation(a, a, **{"radius": 1, **changes})


def test_maps_that_are_no_floats_are_refused():
    a = np.zeros((1, 4, 3, 3), np.int8)
    with pytest.raises(InputError, match="multiply integers by their scale"):
        local_correlation(a, a, radius=1)
