"""What every implementation of the local correlation must do; each test module inherits it."""

from __future__ import annotations

import numpy as np
import pytest

from cclseg.correlation import local_correlation

# Every size and every number of channels; vectors and tails of all kinds at the odd small size.
CASES = [
    (1, (1, 1)), (64, (1, 1)),
    (1, (7, 13)), (3, (7, 13)), (10, (7, 13)), (32, (7, 13)), (64, (7, 13)),
    (3, (37, 53)), (64, (37, 53)),
    (1, (128, 128)), (32, (128, 128)),
]  # fmt: skip


def normal_maps(shape, dtype=np.float32, seed=0):
    """Two maps of standard normal values; the first place of each holds a zero vector."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, *shape)).astype(dtype)
    a[:, :, 0, 0] = 0
    b[:, :, -1, -1] = 0
    return a, b


class CorrelationContract:
    """Inherit, and implement :meth:`run` for maps of ``dtype``.

    Attributes:
        dtype: Type of both maps and of the result.
        rtol, atol: The largest difference from the definition. The defaults fit float32: up to
            64 products of magnitude <= 20 are summed, each sum rounding by 6e-8 of its size, and
            the mean over the channels is taken last.
        refusals: The exceptions that report wrong arguments.
    """

    dtype = np.float32
    rtol, atol = 1e-5, 4e-6
    refusals: tuple[type[Exception], ...] = (ValueError,)

    def run(self, a, b, *, radius, dilation=1, groups=1, normalize=False):
        """Computes the correlation of two arrays in the implementation under test."""
        raise NotImplementedError

    def check(self, a, b, **options):
        found = self.run(a, b, **options)
        expected = local_correlation(a, b, **options)
        assert found.dtype == self.dtype
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=self.rtol, atol=self.atol)

    @pytest.mark.parametrize(("channels", "size"), CASES, ids=str)
    @pytest.mark.parametrize("normalize", [False, True])
    def test_sizes_and_channels(self, channels, size, normalize):
        a, b = normal_maps((2, channels, *size), self.dtype)
        self.check(a, b, radius=2, normalize=normalize)

    @pytest.mark.parametrize("radius", [0, 1, 2, 3, 4])
    @pytest.mark.parametrize("dilation", [1, 2, 3])
    @pytest.mark.parametrize("normalize", [False, True])
    def test_windows(self, radius, dilation, normalize):
        a, b = normal_maps((2, 10, 7, 13), self.dtype)
        self.check(a, b, radius=radius, dilation=dilation, groups=2, normalize=normalize)

    @pytest.mark.parametrize(("channels", "groups"), [(3, 3), (10, 5), (32, 8), (64, 2)])
    @pytest.mark.parametrize("normalize", [False, True])
    def test_groups(self, channels, groups, normalize):
        a, b = normal_maps((1, channels, 9, 35), self.dtype)
        self.check(a, b, radius=1, groups=groups, normalize=normalize)

    def test_window_larger_than_the_map(self):
        a, b = normal_maps((1, 4, 3, 2), self.dtype)
        self.check(a, b, radius=4, dilation=3)

    @pytest.mark.parametrize("normalize", [False, True])
    def test_zero_vectors_correlate_with_nothing(self, normalize):
        a, b = normal_maps((1, 8, 7, 13), self.dtype)
        out = self.run(a, b, radius=1, normalize=normalize)
        assert not out[:, :, 0, 0].any()
        assert not out[:, 4, -1, -1].any()  # lag (0, 0) meets the zero vector of b

    def test_a_map_of_ones_counts_the_places_inside(self):
        ones = np.ones((1, 8, 5, 9), self.dtype)
        out = self.run(ones, ones, radius=2)
        inside = np.pad(ones[0, 0], 2)
        for lag in range(25):
            y, x = divmod(lag, 5)
            np.testing.assert_array_equal(out[0, lag], inside[y : y + 5, x : x + 9])

    @pytest.mark.parametrize("normalize", [False, True])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_a_number_and_infinity_go_where_the_definition_sends_them(self, value, normalize):
        a, b = normal_maps((1, 10, 7, 21), self.dtype)
        a[0, 3, 2, 17] = value
        a[0, 1, 0, 20] = value  # looks outside the map
        b[0, 9, 5, 4] = value
        self.check(a, b, radius=2, normalize=normalize)

    @pytest.mark.parametrize("normalize", [False, True])
    def test_unaligned_and_strided_maps(self, normalize):
        a, b = normal_maps((2, 10, 14, 26), self.dtype)
        strided = a[:, ::-1, ::2, 1::2]
        memory = np.zeros(b[:, :, ::2, ::2].nbytes + 1, np.uint8)
        unaligned = memory[1:].view(self.dtype).reshape(strided.shape)
        unaligned[...] = b[:, :, ::2, ::2]
        assert not strided.flags.c_contiguous
        assert not unaligned.flags.aligned
        self.check(strided, unaligned, radius=1, normalize=normalize)

    def test_maps_of_different_shapes_are_refused(self):
        a, b = normal_maps((1, 4, 7, 13), self.dtype)
        with pytest.raises(self.refusals):
            self.run(a, b[..., 1:], radius=1)

    @pytest.mark.parametrize(
        "options",
        [{"radius": -1}, {"radius": 1, "dilation": 0}, {"radius": 1, "groups": 3},
         {"radius": 1, "groups": 0}],
    )  # fmt: skip
    def test_options_that_do_not_fit_are_refused(self, options):
        a, b = normal_maps((1, 4, 7, 13), self.dtype)
        with pytest.raises(self.refusals):
            self.run(a, b, **options)


class Int8CorrelationContract:
    """For implementations that take int8 maps with scales and return float32.

    Products of int8 are summed without rounding, so only the last scaling rounds.
    """

    rtol, atol = 4e-6, 1e-9
    scales = (0.031, 0.007)

    def run(self, a, b, *, scales, radius, dilation=1, groups=1, normalize=False):
        """Computes the correlation of int8 arrays, whose values are ``scales`` apart."""
        raise NotImplementedError

    def check(self, a, b, **options):
        found = self.run(a, b, scales=self.scales, **options)
        left, right = (
            maps.astype(np.float64) * scale for maps, scale in zip((a, b), self.scales, strict=True)
        )
        expected = local_correlation(left, right, **options)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=self.rtol, atol=self.atol)

    @staticmethod
    def maps(shape):
        a, b = np.random.default_rng(0).integers(-128, 128, (2, *shape), np.int8)
        a[:, :, 0, 0] = 0
        a[:, :, 0, -1] = b[:, :, 0, -1] = -128  # the largest products
        return a, b

    @pytest.mark.parametrize(("channels", "size"), CASES, ids=str)
    @pytest.mark.parametrize("normalize", [False, True])
    def test_sizes_and_channels(self, channels, size, normalize):
        a, b = self.maps((2, channels, *size))
        self.check(a, b, radius=2, normalize=normalize)

    @pytest.mark.parametrize("radius", [0, 1, 2, 3, 4])
    @pytest.mark.parametrize("dilation", [1, 2, 3])
    @pytest.mark.parametrize("normalize", [False, True])
    def test_windows(self, radius, dilation, normalize):
        a, b = self.maps((2, 10, 7, 13))
        self.check(a, b, radius=radius, dilation=dilation, groups=2, normalize=normalize)

    @pytest.mark.parametrize("channels", [64, 320, 2048])
    def test_extreme_values_do_not_overflow(self, channels):
        a = np.full((1, channels, 3, 5), -128, np.int8)
        self.check(a, a, radius=1)
