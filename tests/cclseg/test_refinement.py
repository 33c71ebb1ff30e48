"""Refined results: at any size and stride, in streams, under a budget, with every network."""

import logging

import numpy as np
import pytest
from fake_backend import FakeBackend
from networks import brightest_band_spec, colour_patches
from scenes import blurred_answer, shapes

from cclseg import Segmenter, refinement
from cclseg.errors import InputError
from cclseg.metrics import ConfusionMatrix
from cclseg.postprocess import class_ids, confidence
from cclseg.potential import PotentialParameters
from cclseg.refinement import Refiner

MODES = pytest.mark.parametrize("mode", ["fast", "full"])
STRONG = PotentialParameters(sides_px=(8, 16), region_weights=(1.0, 1.0), edge_weight=1.0)


def mask_of(refiner, image, logits):
    scores, stride = refiner.refined(image, logits)
    return class_ids(scores, stride=stride, size_hw=image.shape[:2])


class TestRefiner:
    @MODES
    @pytest.mark.parametrize("stride", [1, 2, 3, 4, 8])
    @pytest.mark.parametrize("size_hw", [(1, 1), (7, 13), (50, 33), (65, 129)])
    def test_the_scores_cover_a_frame_of_any_size(self, mode, stride, size_hw):
        image = colour_patches(size_hw)
        cells = tuple(-(-side // stride) for side in size_hw)
        logits = np.random.default_rng(0).normal(size=(5, *cells)).astype(np.float32)
        before = logits.copy()
        scores, step = Refiner(mode, stride=stride).refined(image, logits)
        assert step == (2 if mode == "fast" and stride % 2 == 0 else 1)
        assert scores.shape == (5, *(-(-side // step) for side in size_hw))
        np.testing.assert_array_equal(logits, before)

    @MODES
    @pytest.mark.parametrize("seed", range(3))
    def test_a_coarse_and_noisy_answer_gets_better(self, mode, seed):
        image, truth = shapes(seed, (120, 160))
        logits = blurred_answer(truth, seed, stride=4)
        figures = []
        for mask in (
            class_ids(logits, stride=4, size_hw=truth.shape),
            mask_of(Refiner(mode, stride=4, parameters=STRONG), image, logits),
        ):
            matrix = ConfusionMatrix(3)
            matrix.update(mask, truth)
            figures.append((matrix.miou, matrix.boundary.f_score))
        assert figures[1][0] > figures[0][0] + 0.01
        assert figures[1][1] > figures[0][1] + 0.03

    @MODES
    def test_a_frame_without_contrast_keeps_its_decisions(self, mode):
        image, truth = shapes(0, (96, 128))
        logits = blurred_answer(truth, 0, stride=4)
        even = mask_of(Refiner(mode, stride=4, parameters=STRONG), np.full_like(image, 8), logits)
        nothing = PotentialParameters(steps=0)
        expected = mask_of(Refiner(mode, stride=4, parameters=nothing), image, logits)
        np.testing.assert_array_equal(even, expected)

    @MODES
    def test_the_order_of_the_bands_makes_no_difference(self, mode):
        image, truth = shapes(0, (96, 128))
        logits = blurred_answer(truth, 0, stride=4)
        refiner = Refiner(mode, stride=4)
        turned = np.ascontiguousarray(image[:, :, ::-1])
        same = mask_of(refiner, image, logits) == mask_of(refiner, turned, logits)
        assert same.mean() > 0.999  # sums of bands are rounded in another order

    @MODES
    def test_cells_that_are_not_finite_take_after_their_surroundings(self, mode):
        image, _ = shapes(0, (96, 128))
        logits = np.zeros((3, 24, 32), np.float32)
        logits[1] = 4
        logits[0, 5, 7], logits[2, 9, 9] = np.nan, np.inf
        assert (mask_of(Refiner(mode, stride=4, parameters=STRONG), image, logits) == 1).all()

    @MODES
    def test_bands_of_a_large_frame_leave_no_seams(self, mode, monkeypatch):
        image, truth = shapes(2, (400, 60))
        logits = blurred_answer(truth, 2, stride=4)
        refiner = Refiner(mode, stride=4, parameters=STRONG)
        whole, _ = refiner.refined(image, logits)
        monkeypatch.setattr(refinement, "_BAND_PIXELS", 1)
        cut, _ = refiner.refined(image, logits)
        # Contrast is relative to the mean of a band instead of that of the frame.
        assert (whole.argmax(axis=0) == cut.argmax(axis=0)).mean() > 0.995

    def test_unknown_modes_are_refused(self):
        with pytest.raises(InputError, match="expected 'fast' or 'full'"):
            Refiner("off", stride=4)


class TestSegmenter:
    @MODES
    def test_results_are_refined_and_say_how_long_it_took(self, network, mode):
        image = colour_patches((70, 90))
        with Segmenter(network, backend="onnxruntime", threads=1, refine=mode) as segment:
            out = segment(image)
        refiner = Refiner(mode, stride=4)
        np.testing.assert_array_equal(out.mask, mask_of(refiner, image, out.logits))
        scores, stride = refiner.refined(image, out.logits)
        expected = confidence(scores, stride=stride, size_hw=(70, 90))
        np.testing.assert_array_equal(out.confidence, expected)
        assert out.timing["refine"] > 0

    def test_off_is_as_ever(self, network):
        with Segmenter(network, backend="onnxruntime", threads=1) as segment:
            out = segment(colour_patches((70, 90)))
        expected = class_ids(out.logits, stride=4, size_hw=(70, 90))
        np.testing.assert_array_equal(out.mask, expected)
        assert "refine" not in out.timing

    def test_a_stream_gives_what_single_calls_give(self, network):
        frames = [colour_patches((70, 90), seed=seed) for seed in range(4)]
        with Segmenter(network, backend="onnxruntime", threads=1, refine="fast") as segment:
            alone = [segment(frame).mask for frame in frames]
            with segment.stream({"left": frames, "right": frames}) as stream:
                results = list(stream)
        assert len(results) == 8
        for result in results:
            np.testing.assert_array_equal(result.mask, alone[result.frame.index])
            assert "refine" in result.timing

    def test_it_goes_together_with_all_else(self, network):
        options = {"refine": "fast", "temporal": "smooth", "budget_ms": 1e6, "tta": "flips"}
        with Segmenter(network, threads=1, **options) as segment:
            for _ in range(2):
                out = segment(colour_patches((70, 90)))
        assert {"temporal", "refine"} <= out.timing.keys()

    def test_frames_of_other_bands_are_refined_by_all_of_them(self):
        spec = brightest_band_spec(bands=("red", "green", "blue", "nir"))
        image = np.random.default_rng(0).integers(0, 256, (50, 60, 4), np.uint8)
        with Segmenter.from_backend(FakeBackend(spec), refine="full") as segment:
            out = segment(image)
        np.testing.assert_array_equal(
            out.mask, mask_of(Refiner("full", stride=4), image, out.logits)
        )

    def test_with_a_network_on_a_gpu_the_log_says_where_frames_are(self, caplog):
        network = FakeBackend()
        network.on_gpu = object()
        with caplog.at_level(logging.WARNING):
            Segmenter.from_backend(network, refine="fast").close()
        assert "refine= prepare frames on the processor, not the GPU" in caplog.text

    def test_unknown_refinements_are_refused(self, network):
        with pytest.raises(InputError, match=r"refine='fats' .*did you mean 'fast'"):
            Segmenter(network, refine="fats")
