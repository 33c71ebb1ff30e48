"""The image kernels, emulated on the CPU, against the definitions in numpy."""

from __future__ import annotations

import cuda_emulation
import image_emulation
import numpy as np
import pytest
from image_emulation import random_tiles
from native_libraries import built_once
from networks import brightest_band_spec

from cclseg.postprocess import class_ids, confidence, enlarged
from cclseg.preprocess import Normaliser, normalised
from cclseg.tiling import Blender, plan_tiles

SIZES = [(1, 1), (7, 13), (33, 128), (513, 1025)]


@pytest.fixture(scope="session")
def kernels():
    if not cuda_emulation.has_compiler():
        pytest.skip("no g++ to compile the emulation")
    return image_emulation.ImageEmulation(built_once("emulated-image", image_emulation.build))


def image_of(size_hw, bands=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, bands), np.uint8)


def spec_of(**changes):
    statistics = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
    return brightest_band_spec(**(statistics | changes))


def normalised_windows(image, spec, corners, channels):
    """What the processor makes of the same windows."""
    normaliser = Normaliser(spec)
    normaliser.load(np.ascontiguousarray(image), channels=channels)
    tiles = np.empty((len(corners), len(spec.bands), *spec.input_hw), np.float32)
    for corner, tile in zip(corners, tiles, strict=True):
        normaliser.normalise(*corner, tile)
    return tiles


class TestNormalise:
    @pytest.mark.parametrize("size_hw", SIZES, ids=str)
    @pytest.mark.parametrize("channels", ["bgr", "rgb"])
    def test_tiles_are_those_of_the_normaliser(self, kernels, size_hw, channels):
        spec, image = spec_of(tile_hw=(32, 64)), image_of(size_hw)
        corners = [(0, 0), (size_hw[0] // 2, size_hw[1] // 3), (size_hw[0] - 1, size_hw[1] - 1)]
        found = kernels.normalise(image, spec, corners, channels=channels)
        np.testing.assert_array_equal(found, normalised_windows(image, spec, corners, channels))

    def test_a_whole_odd_frame_is_the_definition(self, kernels):
        spec = spec_of(tile_hw=(7, 13), output_stride=1)
        image = image_of((7, 13))
        found = kernels.normalise(image, spec, [(0, 0)], channels="bgr")
        np.testing.assert_array_equal(found, normalised(image, spec, channels="bgr"))

    @pytest.mark.parametrize("bands", [1, 4, 9])
    def test_any_number_of_bands(self, kernels, bands):
        names = tuple(f"b{i}" for i in range(bands))
        spec = brightest_band_spec(
            tile_hw=(8, 12), bands=names, mean=tuple(np.arange(bands) * 1.1), std=(3.3,) * bands,
            palette=((1, 2, 3),) * bands,
        )  # fmt: skip
        image, corners = image_of((20, 17), bands), [(3, 2), (12, 8)]
        found = kernels.normalise(image, spec, corners, channels="bands")
        np.testing.assert_array_equal(found, normalised_windows(image, spec, corners, "bands"))

    @pytest.mark.parametrize(
        "view",
        [
            lambda a: a[::2, 1::3],
            lambda a: a[::-1, ::-1, ::-1],
            lambda a: a.transpose(1, 0, 2),
            lambda a: np.ascontiguousarray(a.transpose(2, 0, 1)).transpose(1, 2, 0),
        ],
        ids=["steps", "flipped", "turned", "planes"],
    )
    def test_images_of_any_strides(self, kernels, view):
        spec, image = spec_of(tile_hw=(16, 16)), view(image_of((31, 45)))
        found = kernels.normalise(image, spec, [(2, 1)], channels="rgb")
        np.testing.assert_array_equal(found, normalised_windows(image, spec, [(2, 1)], "rgb"))

    def test_half_tiles_are_rounded_once(self, kernels):
        spec, image, corners = spec_of(tile_hw=(32, 36)), image_of((40, 50)), [(0, 0), (11, 17)]
        found = kernels.normalise(image, spec, corners, channels="bgr", half=True)
        expected = normalised_windows(image, spec, corners, "bgr").astype(np.float16)
        np.testing.assert_array_equal(found, expected)


class TestBlend:
    @pytest.mark.parametrize("size_hw", [(1, 1), (7, 13), (100, 75), (129, 161)], ids=str)
    @pytest.mark.parametrize("stride", [1, 4])
    @pytest.mark.parametrize("tiles_per_call", [1, 3, 100])
    def test_the_canvas_is_that_of_the_blender(self, kernels, size_hw, stride, tiles_per_call):
        plan = plan_tiles(size_hw, (32, 40), overlap=0.3, stride=stride)
        logits = random_tiles(plan, 3, seed=size_hw[0])
        blender = Blender(plan, num_classes=3)
        for index, tile in enumerate(logits):
            blender.add(index, tile)
        found = kernels.blend(plan, logits, tiles_per_call=tiles_per_call)
        np.testing.assert_array_equal(found, blender.canvas)


class TestClassIds:
    @pytest.mark.parametrize("size_hw", SIZES, ids=str)
    @pytest.mark.parametrize("stride", [1, 2, 3, 4, 8])
    def test_ids_are_those_of_the_enlarged_logits(self, kernels, size_hw, stride):
        cells = tuple(-(-length // stride) for length in size_hw)
        logits = np.random.default_rng(stride).normal(size=(4, *cells)).astype(np.float32)
        found = kernels.result(logits, stride=stride, size_hw=size_hw, dtype="uint8")
        expected = enlarged(logits, stride=stride, size_hw=size_hw).argmax(axis=0)
        np.testing.assert_array_equal(found, expected)

    def test_the_first_class_wins_a_tie(self, kernels):
        logits = np.random.default_rng(0).integers(0, 2, (5, 30, 40)).astype(np.float32)
        found = kernels.result(logits, stride=4, size_hw=(119, 160), dtype="uint8")
        planes = enlarged(logits, stride=4, size_hw=(119, 160))
        ties = (planes == planes.max(axis=0)).sum(axis=0) > 1
        assert ties.mean() > 0.1
        np.testing.assert_array_equal(found, planes.argmax(axis=0))
        # Small whole numbers are enlarged without rounding, so the processor agrees at ties too.
        np.testing.assert_array_equal(found, class_ids(logits, stride=4, size_hw=(119, 160)))

    def test_more_classes_than_a_byte_holds(self, kernels):
        logits = np.random.default_rng(0).normal(size=(300, 4, 5)).astype(np.float32)
        found = kernels.result(logits, stride=4, size_hw=(16, 19), dtype="uint16")
        expected = enlarged(logits, stride=4, size_hw=(16, 19)).argmax(axis=0)
        assert expected.max() > 255
        np.testing.assert_array_equal(found, expected)

    def test_one_class_is_everywhere(self, kernels):
        logits = np.full((1, 3, 3), -7, np.float32)
        assert not kernels.result(logits, stride=4, size_hw=(9, 10), dtype="uint8").any()


class TestConfidence:
    @pytest.mark.parametrize("size_hw", SIZES[:3], ids=str)
    @pytest.mark.parametrize("stride", [1, 4])
    def test_it_is_that_of_the_processor(self, kernels, size_hw, stride):
        cells = tuple(-(-length // stride) for length in size_hw)
        logits = 5 * np.random.default_rng(0).normal(size=(6, *cells)).astype(np.float32)
        found = kernels.result(logits, stride=stride, size_hw=size_hw, dtype="float32")
        planes = enlarged(logits, stride=stride, size_hw=size_hw).astype(np.float64)
        expected = 1 / np.exp(planes - planes.max(axis=0)).sum(axis=0)
        # Six terms of an exponential that is good to two units in the last place, and a quotient.
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        # OpenCV enlarges columns first: logits of magnitude <= 25 round by 2e-6 of each other.
        own = confidence(logits, stride=stride, size_hw=size_hw)
        np.testing.assert_allclose(found, own, rtol=2e-5)

    def test_ties_share(self, kernels):
        logits = np.zeros((4, 5, 6), np.float32)
        found = kernels.result(logits, stride=4, size_hw=(20, 24), dtype="float32")
        np.testing.assert_array_equal(found, np.float32(0.25))


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 7, 8, 16, 32])
def test_a_share_in_whole_numbers_is_that_of_the_definition(stride):
    """The kernels compute where a pixel lies without float64; see Cell."""
    pixels = np.arange(20_000)
    place = np.maximum((pixels + 0.5) / stride - 0.5, 0)
    steps = np.maximum(2 * pixels + 1 - stride, 0)
    lower = steps // (2 * stride)
    np.testing.assert_array_equal(lower, np.floor(place))
    share = (steps - 2 * stride * lower).astype(np.float32) / np.float32(2 * stride)
    np.testing.assert_array_equal(share, (place - np.floor(place)).astype(np.float32))
