"""Smoothing: steadier where both frames see the same, the new frame's own word elsewhere."""

import gc
import weakref

import cv2
import numpy as np
import pytest
from fake_backend import FakeBackend
from networks import colour_patches

from cclseg import Segmenter
from cclseg.correlation import local_correlation
from cclseg.postprocess import class_ids, confidence
from cclseg.temporal import LARGEST_SHARE, TemporalSmoother, similarity

FRAME_HW, STRIDE = (120, 160), 4
CELLS_HW = (30, 40)


def scene(seed=0):
    return colour_patches((400, 400), seed=seed, patch=12)


def view(picture, left=100, top=100, size_hw=FRAME_HW):
    return np.ascontiguousarray(picture[top : top + size_hw[0], left : left + size_hw[1]])


def noisy_logits(seed, *, cells_hw=CELLS_HW):
    return np.random.default_rng(seed).normal(0, 1, (3, *cells_hw)).astype(np.float32)


class TestSimilarity:
    def test_it_is_the_local_correlation_of_the_features(self):
        rng = np.random.default_rng(0)
        frames = rng.uniform(0, 255, (2, 9, 12, 3)).astype(np.float32)
        features = []
        for frame in frames:
            deviation = frame - frame.mean(axis=(0, 1))
            around = [
                np.roll(deviation, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
            ]
            # The mean over nine cells, and the level of noise.
            stacked = [*(np.moveaxis(cell, 2, 0) / 3 for cell in around), np.full((1, 9, 12), 20.0)]
            features.append(np.concatenate(stacked)[None])
        expected = local_correlation(*features, radius=0, normalize=True)[0, 0]
        found = similarity(*frames)
        # Rolled features are those of the window everywhere but at the frame's edge.
        np.testing.assert_allclose(found[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-5)

    def test_noise_on_plain_ground_is_no_difference(self):
        rng = np.random.default_rng(0)
        plain = np.full((20, 20, 3), 120.0)
        frames = (plain + rng.normal(0, 2, (2, 20, 20, 3))).astype(np.float32)
        assert similarity(*frames).min() > 0.9

    def test_something_else_is_different(self):
        a, b = (view(scene(seed)).astype(np.float32)[::4, ::4] for seed in (0, 1))
        assert similarity(a, a).min() > 0.999
        assert np.median(similarity(a, b)) < 0.5


class TestSmoothing:
    def test_the_first_frame_speaks_for_itself(self):
        smoother, logits = TemporalSmoother(stride=STRIDE), noisy_logits(0)
        before = logits.copy()
        smoother.smooth(view(scene()), logits)
        np.testing.assert_array_equal(logits, before)
        assert not smoother.blended

    def test_a_still_picture_takes_over_its_share(self):
        smoother, image = TemporalSmoother(stride=STRIDE), view(scene())
        first, second = noisy_logits(0), noisy_logits(1)
        expected = LARGEST_SHARE * first + (1 - LARGEST_SHARE) * second
        smoother.smooth(image, first)
        smoother.smooth(image, second)
        assert smoother.blended
        # What the registration leaves of a still picture's motion is hundredths of a cell.
        np.testing.assert_allclose(second, expected, atol=0.3)
        assert np.abs(second - expected).mean() < 0.03

    def test_the_share_moves_with_the_ground(self):
        picture, truth = scene(), noisy_logits(7, cells_hw=(100, 100))
        smoother, raw_error, smooth_error = TemporalSmoother(stride=STRIDE), [], []
        for index in range(8):
            left = 100 + 8 * index
            true = truth[:, 25:55, left // 4 : left // 4 + 40]
            logits = true + 0.8 * noisy_logits(index)
            raw_error.append(np.abs(logits - true).mean())
            smoother.smooth(view(picture, left=left), logits)
            smooth_error.append(np.abs(logits - true).mean())
            assert smoother.blended == (index > 0)
        assert smooth_error[-1] < 0.6 * raw_error[-1]

    def test_newly_seen_ground_takes_nothing_over(self):
        smoother, picture = TemporalSmoother(stride=STRIDE), scene()
        smoother.smooth(view(picture), np.full((2, *CELLS_HW), 5, np.float32))
        logits = np.zeros((2, *CELLS_HW), np.float32)
        smoother.smooth(view(picture, left=140), logits)
        assert (logits[:, :, -9:] == 0).all()
        assert logits[:, :, :25].mean() > 2

    def test_what_moved_on_its_own_takes_nothing_over(self):
        smoother, picture = TemporalSmoother(stride=STRIDE), scene()
        car = view(scene(5), size_hw=(40, 40))
        for left in (40, 80):
            image = view(picture)
            image[40:80, left : left + 40] = car
            logits = np.zeros((2, *CELLS_HW), np.float32)
            logits[1, 10:20, left // 4 : left // 4 + 10] = 5
            smoother.smooth(image, logits)
        assert smoother.blended
        assert logits[1, 11:19, 11:19].mean() < 0.5  # where it was
        assert logits[1, 11:19, 21:29].mean() > 4.5  # where it is

    def test_a_scene_cut_starts_anew(self):
        smoother = TemporalSmoother(stride=STRIDE)
        smoother.smooth(view(scene(0)), noisy_logits(0))
        logits = noisy_logits(1)
        smoother.smooth(view(scene(1)), logits)
        np.testing.assert_array_equal(logits, noisy_logits(1))
        smoother.smooth(view(scene(1)), noisy_logits(2))
        assert smoother.blended

    @pytest.mark.parametrize(
        ("image_hw", "shape"), [((120, 160), (2, 30, 40)), ((116, 160), (3, 29, 40))]
    )
    def test_another_size_or_network_starts_anew(self, image_hw, shape):
        smoother = TemporalSmoother(stride=STRIDE)
        smoother.smooth(view(scene()), noisy_logits(0))
        logits = np.zeros(shape, np.float32)
        smoother.smooth(view(scene(), size_hw=image_hw), logits)
        assert not smoother.blended
        assert not logits.any()

    def test_what_is_not_a_number_is_gone_with_its_frame(self):
        smoother, image = TemporalSmoother(stride=STRIDE), view(scene())
        smoother.smooth(image, np.full((3, *CELLS_HW), np.nan, np.float32))
        logits = noisy_logits(1)
        smoother.smooth(image, logits)
        np.testing.assert_array_equal(logits, noisy_logits(1))

    @pytest.mark.parametrize("size_hw", [(1, 1), (7, 13), (131, 277)])
    @pytest.mark.parametrize("bands", [1, 3, 6])
    def test_frames_of_any_form_pass(self, size_hw, bands):
        smoother = TemporalSmoother(stride=STRIDE)
        image = np.random.default_rng(0).integers(0, 256, (*size_hw, bands), np.uint8)
        image = cv2.blur(image, (5, 5)).reshape(image.shape)
        cells_hw = tuple(-(-length // STRIDE) for length in size_hw)
        canvas_hw = tuple(max(length, 16) for length in cells_hw)  # a tile reaches beyond it
        for seed in range(3):
            logits = noisy_logits(seed, cells_hw=canvas_hw)
            smoother.smooth(image, logits)
            assert np.isfinite(logits).all()
        assert smoother.blended == (size_hw == (131, 277))

    def test_the_frame_itself_is_not_kept(self):
        smoother, image = TemporalSmoother(stride=STRIDE), view(scene())
        kept = weakref.ref(image)
        smoother.smooth(image, noisy_logits(0))
        del image
        gc.collect()
        assert kept() is None


def flight(seed, count=6):
    """Frames of a camera that moves 3 px a frame."""
    return [view(scene(seed), left=60 + 3 * index) for index in range(count)]


@pytest.fixture(scope="module")
def smooth(network):
    with Segmenter(network, backend="onnxruntime", threads=1, temporal="smooth") as segmenter:
        yield segmenter


def masks_of_calls(segmenter, frames):
    segmenter(np.zeros((8, 8, 3), np.uint8))  # whatever came before is forgotten
    return [segmenter(frame).mask for frame in frames]


class TestSegmenter:
    def test_an_unsure_network_gets_nearer_to_the_truth(self):
        errors = {"off": [], "smooth": []}
        for temporal, wrong in errors.items():
            with Segmenter.from_backend(FakeBackend(noise=60), temporal=temporal) as segmenter:
                for frame in flight(0):
                    truth = 2 - frame.argmax(axis=2)
                    wrong.append((segmenter(frame).mask != truth).mean())
        assert errors["smooth"][0] == errors["off"][0]
        assert np.mean(errors["smooth"][3:]) < 0.6 * np.mean(errors["off"][3:])

    def test_a_stream_and_calls_say_the_same(self, smooth, network):
        frames = flight(1)
        expected = masks_of_calls(smooth, frames)
        with Segmenter(network, backend="onnxruntime", threads=1) as plain:
            assert (plain(frames[-1]).mask != expected[-1]).any()
        for out in smooth.stream(frames):
            np.testing.assert_array_equal(out.mask, expected[out.frame.index])

    def test_streams_that_share_the_network_do_not_mix(self, smooth):
        flights = {"east": flight(2), "west": flight(3)}
        expected = {name: masks_of_calls(smooth, frames) for name, frames in flights.items()}
        for out in smooth.stream(flights):
            np.testing.assert_array_equal(out.mask, expected[out.frame.stream][out.frame.index])

    def test_mask_and_confidence_follow_from_the_same_logits(self, smooth):
        *_, last = (smooth(frame) for frame in flight(4))
        form = {"stride": STRIDE, "size_hw": last.mask.shape}
        np.testing.assert_array_equal(last.mask, class_ids(last._logits, **form))
        np.testing.assert_array_equal(last.confidence, confidence(last._logits, **form))

    def test_its_time_is_told(self, smooth):
        assert smooth(flight(0, count=1)[0]).timing["temporal"] > 0
