"""What every form of the frame kernels must compute, whoever runs it; see the definitions in numpy.

A subclass gives ``class_ids``, ``normalise`` and ``add``; results must equal the definitions bit
for bit.
"""

from __future__ import annotations

import numpy as np
import pytest
from networks import brightest_band_spec

from cclseg.postprocess import enlarged
from cclseg.preprocess import mirrored, normalised

_RNG_SEED = 7

LOGITS = {
    "noise": lambda rng, shape: rng.normal(size=shape),
    "ties": lambda rng, shape: rng.integers(-2, 3, shape),
    # Rounding is as large as the differences, so that it decides who wins.
    "near ties": lambda rng, shape: 1000 + rng.normal(size=shape) * 1e-4,
    "regions": lambda rng, shape: np.kron(
        rng.normal(size=(shape[0], -(-shape[1] // 6), -(-shape[2] // 6))), np.ones((6, 6))
    )[:, : shape[1], : shape[2]],
    "tiny": lambda rng, shape: rng.integers(-9, 10, shape) * 1e-44,
    "equal": lambda rng, shape: np.ones(shape),
}

ENLARGEMENTS = [  # classes, rows, columns, stride, what the frame lacks of the last logits
    (1, 1, 1, 1, (0, 0)),
    (3, 1, 1, 4, (3, 1)),
    (2, 7, 13, 1, (0, 0)),
    (5, 9, 40, 4, (3, 1)),
    (4, 33, 21, 2, (1, 0)),
    (3, 6, 35, 3, (2, 1)),
    (7, 4, 19, 5, (0, 4)),
    (2, 5, 18, 7, (3, 3)),
    (5, 3, 34, 8, (7, 5)),
    (300, 3, 17, 4, (1, 2)),
]


def logits_of(kind, shape):
    values = LOGITS[kind](np.random.default_rng(_RNG_SEED), shape)
    return np.ascontiguousarray(values, np.float32)


class FrameContract:
    """Inherited by the tests of each way to run the kernels."""

    @pytest.mark.parametrize("kind", LOGITS)
    @pytest.mark.parametrize("case", ENLARGEMENTS)
    def test_classes_are_those_of_the_definition(self, case, kind):
        classes, rows, columns, stride, lack = case
        logits = logits_of(kind, (classes, rows, columns))
        size_hw = (rows * stride - lack[0], columns * stride - lack[1])
        found = self.class_ids(logits, stride=stride, size_hw=size_hw)
        assert found.dtype == (np.uint8 if classes <= 255 else np.uint16)
        expected = enlarged(logits, stride=stride, size_hw=size_hw).argmax(axis=0)
        np.testing.assert_array_equal(found, expected)

    def test_logits_that_are_no_numbers_do_no_harm(self):
        logits = logits_of("noise", (3, 9, 40))
        logits[1, 2:4, 5:30] = np.nan
        logits[2, 6, 10:20] = np.inf
        found = self.class_ids(logits, stride=4, size_hw=(35, 157))
        assert found.max() < 3

    @pytest.mark.parametrize(
        ("image_hw", "corner", "tile_hw"),
        [
            ((40, 70), (3, 5), (16, 33)),
            ((7, 13), (0, 0), (16, 40)),
            ((1, 1), (0, 0), (5, 7)),
            ((9, 1500), (2, 300), (8, 1203)),
        ],
    )
    @pytest.mark.parametrize("channels", [1, 3, 4, 7])
    def test_windows_are_normalised_as_defined(self, image_hw, corner, tile_hw, channels):
        image = np.random.default_rng(1).integers(0, 256, (*image_hw, channels), np.uint8)
        bands = channels if channels != 4 else 3  # an alpha channel that the network does not take
        places = list(range(bands))[::-1]
        mean = np.linspace(100.3, 131.7, bands).astype(np.float32)
        deviation = np.linspace(51.1, 70.9, bands).astype(np.float32)
        found = self.normalise(image, places, mean, deviation, corner, tile_hw)
        rows = mirrored(corner[0], tile_hw[0], image_hw[0])
        columns = mirrored(corner[1], tile_hw[1], image_hw[1])
        tile = image[np.ix_(rows, columns, places)]
        expected = ((tile.astype(np.float32) - mean) / deviation).transpose(2, 0, 1)
        np.testing.assert_array_equal(found, expected)

    def test_every_value_is_normalised_as_defined(self):
        image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        spec = brightest_band_spec(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
        mean, deviation = (np.array(values, np.float32) for values in (spec.mean, spec.std))
        found = self.normalise(image, (2, 1, 0), mean, deviation, (0, 0), (16, 16))
        np.testing.assert_array_equal(found, normalised(image, spec, channels="bgr")[0])

    @pytest.mark.parametrize("tile_hw", [(1, 1), (5, 33), (8, 16)])
    def test_tiles_are_added_as_defined(self, tile_hw):
        rng = np.random.default_rng(2)
        canvas = rng.normal(size=(3, 12, 40)).astype(np.float32)
        logits = rng.normal(size=(3, *tile_hw)).astype(np.float32)
        rows, columns = (rng.random(length, np.float32) for length in tile_hw)
        expected = canvas.copy()
        window = expected[:, 2 : 2 + tile_hw[0], 4 : 4 + tile_hw[1]]
        window += logits * np.outer(rows, columns)
        found = self.add(logits, canvas, (2, 4), (rows, columns))
        np.testing.assert_array_equal(found, expected)
