"""Levels of work: every frame right at each of them, and the budget kept by stepping through."""

import logging
import time

import numpy as np
import pytest
from fake_backend import FakeBackend, submit_to
from networks import brightest_band_spec, colour_patches

from cclseg import Segmenter
from cclseg.errors import InputError
from cclseg.levels import LevelRun, Regime, declared_levels
from cclseg.packing import Network
from cclseg.postprocess import regridded
from cclseg.sources.arrays import ArraySource
from cclseg.stream import Stream

PATIENCE_S = 120
NAMES = ("full", "no-overlap", "scale-0.75", "scale-0.5", "small-scale-0.5")


def fake_network(name="brightest-band", tile_hw=(32, 32), **options):
    backend = FakeBackend(brightest_band_spec(name=name, tile_hw=tile_hw), **options)
    return Network(backend.spec, submit_to(backend), backend.tiles_per_call)


@pytest.fixture(scope="module")
def levels():
    # Another tile size, so that a tile which went to the wrong network could not pass.
    return declared_levels(fake_network(), fake_network("small", (48, 64)))


def mask_at(level, image):
    return LevelRun(level)(image).segmentation(image).mask


class TestLevels:
    def test_they_are_declared_from_the_most_accurate_to_the_cheapest(self, levels):
        assert tuple(level.name for level in levels) == NAMES
        assert [level.scale for level in levels] == [1, 1, 0.75, 0.5, 0.5]
        assert [level.overlap for level in levels] == [0.25, 0, 0, 0, 0]
        assert [level.model for level in levels] == [*["brightest-band"] * 4, "small"]
        assert len(declared_levels(fake_network())) == 4

    @pytest.mark.parametrize("size_hw", [(1, 1), (2, 3), (7, 13), (64, 96), (131, 77)])
    @pytest.mark.parametrize("place", range(5))
    def test_the_mask_has_the_size_of_the_frame(self, levels, size_hw, place):
        for class_id, colour in enumerate([(0, 0, 200), (0, 200, 0), (200, 0, 0)]):
            mask = mask_at(levels[place], np.full((*size_hw, 3), colour, np.uint8))
            assert mask.shape == size_hw
            assert (mask == class_id).all()

    @pytest.mark.parametrize("place", range(1, 5))
    def test_things_stay_where_they_are(self, levels, place):
        image = colour_patches((131, 203), patch=32)
        full, mask = (mask_at(levels[i], image) for i in (0, place))
        # Only the borders of the patches may move, and by no more than a pixel or two.
        assert (full != mask).mean() < 0.06
        swapped = mask_at(levels[place], image[:, ::-1])[:, ::-1]
        assert abs((full != mask).mean() - (full != swapped).mean()) < 0.03

    def test_frames_of_many_bands_are_scaled_too(self):
        spec = brightest_band_spec(bands=tuple("abcdef"), palette=())
        backend = FakeBackend(spec)
        network = Network(spec, submit_to(backend), 1)
        image = np.random.default_rng(0).integers(0, 90, (50, 70, 6), np.uint8)
        image[..., 4] = 200
        assert (mask_at(declared_levels(network)[3], image) == 4).all()


@pytest.mark.parametrize("scale", [0.75, 0.5, 0.31])
def test_logits_of_a_scaled_frame_come_to_lie_at_their_places(scale):
    to_hw = (120, 203)
    from_hw = tuple(round(scale * length) for length in to_hw)
    cells_hw = tuple(-(-length // 4) for length in from_hw)

    def places(cells, of_px, in_px):
        return ((np.arange(cells) + 0.5) * 4 * in_px / of_px)[None]  # in pixels of the frame

    down = places(cells_hw[0], from_hw[0], to_hw[0])
    across = places(cells_hw[1], from_hw[1], to_hw[1])
    ramps = np.stack([np.broadcast_to(down.T, cells_hw), np.broadcast_to(across, cells_hw)])
    moved = regridded(ramps.astype(np.float32), from_hw=from_hw, to_hw=to_hw, stride=4)
    expected = np.meshgrid(places(30, 1, 1), places(51, 1, 1), indexing="ij")
    # OpenCV interpolates in steps of 1/32 of a cell; the outermost cells cannot be gone beyond.
    inner = (slice(None), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(moved[inner], np.array(expected)[inner], atol=4 / scale / 32)


class TestSegmenter:
    def test_without_a_budget_there_is_one_level(self, network):
        with Segmenter(network, backend="onnxruntime", threads=1) as segmenter:
            assert [level.name for level in segmenter.levels] == ["full"]
            assert segmenter(colour_patches((24, 32))).level == "full"

    @pytest.mark.parametrize("budget_ms", [0, -1, float("nan")])
    def test_a_budget_that_is_none_is_refused(self, budget_ms):
        with pytest.raises(InputError, match="expected milliseconds above 0"):
            Segmenter.from_backend(FakeBackend(), budget_ms=budget_ms)

    def test_a_frame_that_does_not_fit_is_refused_before_it_is_timed(self):
        with Segmenter.from_backend(FakeBackend(), budget_ms=5) as segmenter:
            with pytest.raises(InputError, match="the frame is None"):
                segmenter(None)
            with pytest.raises(InputError, match="alpha channel"):
                segmenter(np.zeros((8, 8, 4), np.uint8))

    def test_costs_are_measured_once_for_each_size(self):
        with Segmenter.from_backend(FakeBackend(), budget_ms=5) as segmenter:
            measured = segmenter.level_costs_ms((64, 96))
            assert tuple(measured) == NAMES[:4]
            assert min(measured.values()) > 0
            assert segmenter.level_costs_ms((64, 96)) == measured

    def test_the_bundled_model_has_a_smaller_one(self):
        with Segmenter("ccl-lite0", backend="onnxruntime", threads=1, budget_ms=50) as segmenter:
            assert [level.model for level in segmenter.levels] == [*["ccl-lite0"] * 4, "ccl-nano"]

    def test_on_a_device_that_slows_down_it_goes_down_and_back_up(self, caplog):
        backend, image = FakeBackend(tile_s=0.004), colour_patches((96, 96), patch=32)
        with (
            caplog.at_level(logging.INFO, "cclseg.levels"),
            Segmenter.from_backend(backend, budget_ms=400) as segmenter,
        ):
            first = segmenter(image)
            assert first.level == "full"
            backend.tile_s = 0.05  # sixteen tiles at the full level
            self._until(segmenter, image, lambda out: out.level == "scale-0.5")
            backend.tile_s = 0.0
            self._until(segmenter, image, lambda out: out.level == "full")
            np.testing.assert_array_equal(segmenter(image).mask, first.mask)
        told = [(r.levelname, r.getMessage()) for r in caplog.records]
        assert any(name == "WARNING" and "on to level scale-0.5" in text for name, text in told)
        assert any(name == "INFO" and "back to level full" in text for name, text in told)

    def _until(self, segmenter, image, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition(out := segmenter(image)):
            assert out.mask.shape == image.shape[:2]
            assert time.monotonic() < deadline, f"it stays at level {out.level}"


class TestStreams:
    def test_levels_that_change_all_the_time_mix_up_nothing(self, levels, monkeypatch):
        class InTurn:
            """Another level for every frame."""

            def __init__(self, regime):
                self._levels, self._count = regime.levels, 0

            def level_for(self, image):
                self._count += 1
                return self._levels[(self._count * 3) % len(self._levels)]

            def note(self, level, timing):
                assert level in self._levels
                assert timing["infer"] > 0

        monkeypatch.setattr("cclseg.stream.LevelChooser", InTurn)
        images = [colour_patches((60, 90), seed=seed, patch=30) for seed in range(20)]
        by_name = {level.name: level for level in levels}
        sources = {"a": ArraySource(images), "b": ArraySource(images[::-1])}
        regime = Regime(levels)
        with Stream(levels[0].network, sources, regime=regime) as stream:
            for out in stream:
                image = images[out.frame.index if out.frame.stream == "a" else -1 - out.frame.index]
                np.testing.assert_array_equal(out.mask, mask_at(by_name[out.level], image))
            assert stream.stats().levels == dict.fromkeys(NAMES, 8)
            assert stream.stats("a").levels == dict.fromkeys(NAMES, 4)

    def test_a_budget_that_nothing_can_keep_is_told_once(self, caplog):
        backend = FakeBackend(tile_s=0.002)
        with (
            caplog.at_level(logging.WARNING, "cclseg.levels"),
            Segmenter.from_backend(backend, budget_ms=0.01) as segmenter,
        ):
            results = list(segmenter.stream([colour_patches((64, 64))] * 12))
        assert results[-1].level != "full"
        assert caplog.text.count("at the cheapest level") == 1
