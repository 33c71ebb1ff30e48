"""Test-time augmentation: one more backend, and whatever is turned comes out turned."""

import logging

import numpy as np
import pytest
from contracts import BackendContract
from fake_backend import FakeBackend
from networks import block_means, brightest_band_spec, colour_patches, write_brightest_band

from cclseg import Segmenter
from cclseg.backends.choose import open_backend
from cclseg.errors import InputError
from cclseg.models import bundled_models, find_model
from cclseg.symmetries import SYMMETRIES, SymmetricBackend, Symmetry

AVERAGING = pytest.mark.parametrize("tta", ["flips", "d4"])


class LopsidedBackend(FakeBackend):
    """Takes one corner of every block for the whole, and prefers classes by their place."""

    def __init__(self, spec=None, *, tiles_per_call=1):
        super().__init__(spec)
        self.tiles_per_call = tiles_per_call
        self.calls = []

    def _infer(self, images):
        self.calls.append(len(images))
        corners = images[:, :, ::4, ::4]
        rows, columns = np.indices(corners.shape[2:], dtype=np.float32)
        places = np.stack([rows, columns, rows * columns])
        return corners + 0.1 * places + np.roll(corners, 1, axis=1) / 3


class TestContract(BackendContract):
    @pytest.fixture
    def backend(self, network):
        return SymmetricBackend(open_backend(network, backend="onnxruntime", threads=1), "d4")


class TestContractInStreamsOfOpenVino(BackendContract):
    @pytest.fixture
    def backend(self, network):
        return SymmetricBackend(open_backend(network, backend="openvino", threads=2), "flips")


class TestContractOpened(BackendContract):
    @pytest.fixture
    def backend(self, network):
        return SymmetricBackend.open(network, threads=1)


def noise(count, side=(32, 32)):
    return np.random.default_rng(count).normal(size=(count, 3, *side)).astype(np.float32)


@AVERAGING
class TestSymmetries:
    def test_each_is_undone(self, tta):
        maps = noise(2)
        for symmetry in SYMMETRIES[tta]:
            np.testing.assert_array_equal(symmetry.undone(symmetry.applied(maps)), maps)

    def test_they_are_distinct_and_closed(self, tta):
        (grid,) = noise(1)
        positions = {symmetry.applied(grid).tobytes() for symmetry in SYMMETRIES[tta]}
        assert len(positions) == {"flips": 4, "d4": 8}[tta]
        for first in SYMMETRIES[tta]:
            twice = {s.applied(first.applied(grid)).tobytes() for s in SYMMETRIES[tta]}
            assert twice == positions


@AVERAGING
@pytest.mark.parametrize("tiles_per_call", [1, 3, 8, 20])
class TestAveraging:
    def test_turned_tiles_give_turned_logits_bit_by_bit(self, tta, tiles_per_call):
        backend = SymmetricBackend(LopsidedBackend(tiles_per_call=tiles_per_call), tta)
        tiles = noise(5)
        upright = backend.infer(tiles)
        for symmetry in SYMMETRIES[tta]:
            turned = backend.infer(np.ascontiguousarray(symmetry.applied(tiles)))
            np.testing.assert_array_equal(turned, symmetry.applied(upright))

    def test_it_is_the_mean_of_all_positions(self, tta, tiles_per_call):
        backend = SymmetricBackend(LopsidedBackend(tiles_per_call=tiles_per_call), tta)
        tiles = noise(5)
        alone = LopsidedBackend()
        positions = [
            symmetry.undone(alone.infer(np.ascontiguousarray(symmetry.applied(tiles))))
            for symmetry in SYMMETRIES[tta]
        ]
        np.testing.assert_allclose(backend.infer(tiles), np.mean(positions, axis=0), atol=1e-5)

    def test_full_calls_of_the_network(self, tta, tiles_per_call):
        network = LopsidedBackend(tiles_per_call=tiles_per_call)
        SymmetricBackend(network, tta).infer(noise(5))
        *full, last = network.calls
        assert set(full) <= {tiles_per_call}
        assert 0 < last <= tiles_per_call
        assert sum(network.calls) == 5 * len(SYMMETRIES[tta])

    def test_a_symmetric_network_stays_as_it_is(self, tta, tiles_per_call):
        network = FakeBackend()
        network.tiles_per_call = tiles_per_call
        tiles = np.round(noise(4) * 64) / 64  # whose sums are exact in any order
        np.testing.assert_array_equal(
            SymmetricBackend(network, tta).infer(tiles), block_means(tiles)
        )


class OverlappingBackend(LopsidedBackend):
    """Answers late, as a GPU does, and at most two calls at a time."""

    calls_in_flight = 2

    def __init__(self):
        super().__init__(tiles_per_call=8)
        self.under_way = self.most_under_way = 0

    def _submit(self, images):
        logits = np.array(self._infer(images))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)

        def collect():
            self.under_way -= 1
            return logits

        return collect


def test_calls_overlap_as_those_of_the_network_do():
    network = OverlappingBackend()
    backend = SymmetricBackend(network, "d4")
    assert (backend.tiles_per_call, backend.calls_in_flight) == (1, 2)
    tiles = noise(2)
    expected = [
        np.array(SymmetricBackend(LopsidedBackend()).infer(tiles[i : i + 1])) for i in (0, 1)
    ]
    buffer = tiles[:1].copy()
    first = backend.submit(buffer)
    buffer[:] = tiles[1:]
    second = backend.submit(buffer)
    buffer[:] = 0
    for collect, logits in zip((first, second), expected, strict=True):
        np.testing.assert_allclose(collect(), logits, atol=1e-6)
    assert network.most_under_way == 2


def test_tiles_that_are_not_square_take_flips_alone():
    wide = brightest_band_spec(tile_hw=(32, 64))
    backend = SymmetricBackend(LopsidedBackend(wide), "flips")
    tiles = noise(2, (32, 64))
    mirrored = Symmetry(mirrored=True)
    np.testing.assert_array_equal(
        backend.infer(np.ascontiguousarray(mirrored.applied(tiles))),
        mirrored.applied(backend.infer(tiles)),
    )
    with pytest.raises(InputError, match=r"tiles of 32 x 64; use tta='flips'"):
        SymmetricBackend(LopsidedBackend(wide), "d4")


def test_unknown_symmetries_are_refused(network):
    with pytest.raises(InputError, match="did you mean 'flips'"):
        SymmetricBackend(FakeBackend(), "flip")
    with pytest.raises(InputError, match="tta='d8' is not supported"):
        Segmenter(network, tta="d8")


def test_a_network_on_a_gpu_is_fed_by_the_host_and_the_log_says_so(caplog):
    network = FakeBackend()
    network.on_gpu = object()
    with caplog.at_level(logging.WARNING):
        assert SymmetricBackend(network, "flips").on_gpu is None
    assert "on the processor, not the GPU" in caplog.text


def test_it_is_closed_with_its_network():
    network = FakeBackend()
    SymmetricBackend(network).close()
    assert network.closed


class TestSegmenter:
    def test_it_averages_and_still_names_the_library(self, network):
        image = colour_patches((80, 100))
        with (
            Segmenter(network, backend="onnxruntime", threads=1) as plain,
            Segmenter(network, backend="onnxruntime", threads=1, tta="d4") as averaging,
        ):
            assert averaging.backend == "onnxruntime"
            # This network is symmetric: but for the rounding of near ties nothing may change.
            assert (averaging(image).mask != plain(image).mask).mean() < 0.002

    def test_turned_frames_give_turned_masks(self):
        image = colour_patches((96, 96))
        turned = np.ascontiguousarray(np.rot90(image))

        def share_that_differs(backend):
            with Segmenter.from_backend(backend) as segment:
                return (np.rot90(segment(image).mask) != segment(turned).mask).mean()

        assert share_that_differs(LopsidedBackend()) > 0.02
        # Blending sums the same logits of neighbouring tiles in another order.
        assert share_that_differs(SymmetricBackend(LopsidedBackend(), "d4")) < 0.002

    def test_a_stream_gives_what_single_calls_give(self, network):
        frames = [colour_patches((70, 90), seed=seed) for seed in range(5)]
        with Segmenter(network, backend="openvino", threads=1, tta="d4") as segment:
            alone = [segment(frame).mask for frame in frames]
            with segment.stream(frames) as stream:
                streamed = [result.mask for result in stream]
        np.testing.assert_array_equal(streamed, alone)

    def test_under_a_budget_every_level_is_averaged(self, network):
        with Segmenter(network, threads=1, tta="flips", budget_ms=1e6) as segment:
            assert segment(colour_patches((70, 90))).level == "full"

    def test_a_tile_that_is_not_square_says_what_to_do(self, tmp_path):
        path = write_brightest_band(tmp_path / "open.onnx", open_size=True)
        with pytest.raises(InputError, match=r"square tiles \(tile=32\)"):
            Segmenter(path, tile=(64, 32), tta="d4", threads=1)
        with Segmenter(path, tile=64, tta="d4", threads=1) as segment:
            assert segment(colour_patches((70, 90))).mask.shape == (70, 90)


def test_a_bundled_network_turns_with_its_tile():
    if "ccl-nano" not in bundled_models():
        pytest.skip("the model 'ccl-nano' is not bundled in this checkout")
    network = open_backend(find_model("ccl-nano"), backend="onnxruntime", threads=1)
    tile = noise(1, network.spec.input_hw)
    quarter = Symmetry(quarter_turns=1)
    turned = np.ascontiguousarray(quarter.applied(tile))
    with SymmetricBackend(network, "d4") as backend:
        np.testing.assert_array_equal(backend.infer(turned), quarter.applied(backend.infer(tile)))
        alone = np.array(network.infer(tile))
        assert np.abs(network.infer(turned) - quarter.applied(alone)).max() > 0.1
