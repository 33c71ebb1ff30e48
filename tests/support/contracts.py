"""What every backend, source and sink must do; a new one inherits these tests.

A subclass gives the fixture that makes the thing under test and gets all tests of the class.
"""

import cv2
import numpy as np
import pytest
from leftovers import no_new_threads
from networks import block_means, brightest_band_spec, colour_patches

from cclseg.errors import BackendError, InputError, SpecError
from cclseg.frame import Frame
from cclseg.image_files import read_image
from cclseg.result import Segmentation


class BackendContract:
    """For a backend that loads the network of :func:`networks.write_brightest_band`."""

    device = "cpu"

    @pytest.fixture
    def backend(self):
        """The opened backend."""
        raise NotImplementedError

    def test_logits_are_those_of_the_network(self, backend):
        images = np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)
        np.testing.assert_allclose(backend.infer(images), block_means(images), atol=1e-5)

    @pytest.mark.parametrize("count", [2, 3, 8, 21])
    def test_tiles_of_one_call_keep_their_order(self, backend, count):
        images = np.random.default_rng(count).normal(size=(count, 3, 32, 32)).astype(np.float32)
        for _ in range(4):  # a backend may change its ways after the first calls
            np.testing.assert_allclose(backend.infer(images), block_means(images), atol=1e-5)

    def test_it_says_what_it_is(self, backend):
        assert backend.name
        assert backend.device == self.device
        assert backend.spec == brightest_band_spec()
        assert backend.tiles_per_call >= 1

    @pytest.mark.parametrize("shape", [(3, 32, 32), (1, 4, 32, 32), (1, 3, 32, 64)])
    def test_another_shape_is_an_input_error(self, backend, shape):
        with pytest.raises(InputError, match=r"expected \(N, 3, 32, 32\)"):
            backend.infer(np.zeros(shape, np.float32))

    def test_logits_unlike_the_spec_are_a_spec_error(self, backend):
        backend.spec = brightest_band_spec(output_stride=8)
        with pytest.raises(SpecError, match="output stride 8"):
            backend.infer(np.zeros((1, 3, 32, 32), np.float32))

    def test_a_closed_backend_says_so(self, backend):
        backend.close()
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            backend.infer(np.zeros((1, 3, 32, 32), np.float32))


class SourceContract:
    """For a source of at least two frames, none of them broken."""

    @pytest.fixture
    def source(self):
        """The opened source."""
        raise NotImplementedError

    def test_frames_are_images_in_order(self, source):
        frames = list(source)
        assert [frame.index for frame in frames] == list(range(len(frames)))
        for frame in frames:
            assert frame.image.dtype == np.uint8
            assert frame.image.ndim == 3
            assert frame.size_hw == frame.image.shape[:2]

    def test_names_are_distinct_file_stems(self, source):
        names = [frame.name for frame in source]
        assert len(set(names)) == len(names)
        assert all(name and "/" not in name for name in names)

    def test_it_announces_its_length(self, source):
        assert source.total == len(list(source))

    def test_it_can_be_read_twice(self, source):
        first, second = ([frame.image for frame in source] for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_a_frame_is_owned_by_its_receiver(self, source):
        frames = iter(source)
        first = next(frames)
        before = first.image.copy()
        next(frames)
        np.testing.assert_array_equal(first.image, before)

    def test_it_can_be_left_in_the_middle_and_closed_twice(self, source):
        with no_new_threads():
            with source:
                next(iter(source))
            source.close()


class SinkContract:
    """For a sink that takes three frames of 48 x 64 pixels."""

    @pytest.fixture
    def sink(self, tmp_path):
        """The sink, writing somewhere below tmp_path."""
        raise NotImplementedError

    def pictures(self, sink):
        """Returns the written pictures, in the order of the frames."""
        raise NotImplementedError

    def test_every_frame_arrives(self, sink, items):
        with sink:
            for item in items:
                sink.write(*item)
        assert len(self.pictures(sink)) == len(items)
        assert all(picture.shape[:2] == (48, 64) for picture in self.pictures(sink))

    def test_nothing_but_results_is_left(self, sink, items, tmp_path):
        with sink:
            for item in items:
                sink.write(*item)
        assert not list(tmp_path.rglob("*partial*"))

    def test_an_abort_leaves_nothing_half_written(self, sink, items, tmp_path):
        def write_and_fail():
            with sink:
                sink.write(*items[0])
                raise RuntimeError("the caller failed")

        with pytest.raises(RuntimeError, match="the caller failed"):
            write_and_fail()
        assert not list(tmp_path.rglob("*partial*"))

    def test_without_frames_it_ends_in_peace(self, sink, tmp_path):
        with sink:
            pass
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    @pytest.fixture
    def items(self):
        return [item(index) for index in range(3)]


def item(index, *, size_hw=(48, 64), path=None):
    """Returns a frame with a result of its own."""
    frame = Frame(colour_patches(size_hw, seed=index), index, f"frame_{index}", path=path)
    patches = np.random.default_rng(index).normal(
        size=(3, -(-size_hw[0] // 16), -(-size_hw[1] // 16))
    )
    logits = patches.repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)
    mask = logits.argmax(axis=0).repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8)
    mask = np.ascontiguousarray(mask[: size_hw[0], : size_hw[1]])
    return frame, Segmentation(mask, logits, brightest_band_spec())


def images_in(folder):
    """Reads the images of a folder in the order of their names."""
    return [read_image(path) for path in sorted(folder.iterdir())]


def frames_in(path):
    """Decodes a video."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame)
    return frames
