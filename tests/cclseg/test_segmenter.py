"""The segmenter on networks whose answer is known, on frames of every form."""

import dataclasses
import gc
import logging

import cv2
import numpy as np
import pytest
from networks import block_means, brightest_band_spec, colour_patches, write_brightest_band

from cclseg import Segmenter
from cclseg.errors import BackendError, InputError, SourceError, SpecError
from cclseg.postprocess import class_ids
from cclseg.preprocess import normalised

LIBRARIES = pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])


def expected_mask(image, spec, *, channels="bgr"):
    """Returns the mask by definition: the network on the whole, mirrored frame, without tiles."""
    height, width = image.shape[:2]
    padding = [
        (0, max(tile - n, -n % 4)) for n, tile in zip((height, width), spec.input_hw, strict=True)
    ]
    whole = np.pad(image, [*padding, (0, 0)], mode="reflect")
    logits = block_means(normalised(whole, spec, channels=channels))[0]
    return class_ids(logits, stride=4, size_hw=(height, width))


@pytest.fixture(scope="module")
def segment(network):
    with Segmenter(network, backend="onnxruntime", threads=1) as segmenter:
        yield segmenter


@LIBRARIES
@pytest.mark.parametrize("size_hw", [(1, 1), (7, 13), (32, 32), (33, 100), (96, 128), (131, 77)])
def test_tiles_give_the_mask_of_the_whole_frame(network, backend, size_hw):
    image = colour_patches(size_hw)
    with Segmenter(network, backend=backend, threads=2) as segmenter:
        out = segmenter(image)
        expected = expected_mask(image, segmenter.spec)
    assert out.mask.shape == size_hw
    # Blending sums the same logits in another order: only near ties may change.
    assert (out.mask != expected).mean() < 0.002


def test_flat_colours_give_their_class_everywhere(segment):
    for class_id, colour in enumerate([(0, 0, 200), (0, 200, 0), (200, 0, 0)]):
        image = np.full((50, 70, 3), colour, np.uint8)
        assert (segment(image).mask == class_id).all()


def test_channels_say_how_the_frame_is_ordered(segment):
    image = np.full((32, 32, 3), (200, 0, 0), np.uint8)
    assert (segment(image).mask == 2).all()
    assert (segment(image, channels="rgb").mask == 0).all()
    assert (segment(image, channels="bands").mask == 0).all()
    with pytest.raises(InputError, match="expected 'bgr', 'rgb' or 'bands'"):
        segment(image, channels="hsv")


def test_other_bands_than_colours(tmp_path):
    spec = brightest_band_spec(bands=("red", "green", "blue", "nir"))
    image = np.zeros((40, 40, 4), np.uint8)
    image[:, :, 3] = 200
    with Segmenter(
        write_brightest_band(tmp_path / "a.onnx", spec), backend="onnxruntime"
    ) as segment:
        assert (segment(image).mask == 3).all()
        with pytest.raises(InputError, match="choose the 4 bands that the model takes"):
            segment(image[:, :, :3])


def test_frames_of_changing_sizes_in_turn(segment):
    for seed, size_hw in enumerate([(40, 50), (20, 20), (40, 50), (100, 33)]):
        image = colour_patches(size_hw, seed=seed)
        assert (segment(image).mask != expected_mask(image, segment.spec)).mean() < 0.002


def test_a_result_owns_its_arrays(segment):
    first = segment(colour_patches((64, 64), seed=1))
    mask = first.mask.copy()
    segment(colour_patches((64, 64), seed=2))
    np.testing.assert_array_equal(first.mask, mask)
    np.testing.assert_array_equal(
        first.confidence, segment(colour_patches((64, 64), seed=1)).confidence
    )


def test_the_same_frame_gives_the_same_mask(segment):
    image = colour_patches((90, 90))
    np.testing.assert_array_equal(segment(image).mask, segment(image).mask)


def test_views_and_read_only_frames_are_taken(segment):
    image = colour_patches((64, 64))
    image.setflags(write=False)
    np.testing.assert_array_equal(segment(image[:, ::-1]).mask, segment(image[:, ::-1].copy()).mask)


def test_stages_are_timed(segment):
    timing = segment(colour_patches((64, 64))).timing
    assert set(timing) == {"preprocess", "infer", "blend", "postprocess"}
    assert all(elapsed_ms > 0 for elapsed_ms in timing.values())


@pytest.mark.parametrize(
    ("frame", "advice"),
    [
        (None, "cv2.imread returns None"),
        ([[1, 2, 3]], "expected a numpy array"),
        (np.zeros((8, 8), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((8, 8, 1), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((8, 8, 4), np.uint8), "alpha channel"),
        (np.zeros((8, 8, 7), np.uint8), "choose the 3 bands"),
        (np.zeros((8, 8, 3), np.uint16), "scale its values"),
        (np.zeros((8, 8, 3), np.float32), "scale its values"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"expected \(H, W, 3\) uint8"),
    ],
)
def test_a_frame_that_does_not_fit_says_what_to_do(segment, frame, advice):
    with pytest.raises(InputError, match=advice):
        segment(frame)


class TestArguments:
    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            (
                {"device": "cuda"},
                "device='cuda' is not supported by this version; known: auto, cpu",
            ),
            ({"refine": "best"}, "refine='best' is not supported"),
            ({"temporal": "smoth"}, "did you mean 'smooth'"),
            ({"budget_ms": 0}, "expected milliseconds above 0"),
            ({"precision": "int8"}, "the model 'brightest-band' is fp32"),
            ({"overlap": 1.5}, "overlap=1.5"),
            ({"tile": 30}, "multiples of the model's output stride 4"),
            ({"tile": 0}, "tile=0"),
            ({"threads": 0}, "threads=0"),
            ({"backend": "onnx-runtime"}, "did you mean 'onnxruntime'"),
        ],
    )
    def test_what_cannot_be_is_refused(self, network, argument, message):
        with pytest.raises(InputError, match=message):
            Segmenter(network, **({"backend": "onnxruntime"} | argument))

    def test_another_tile_for_a_network_of_fixed_size_is_refused(self, network):
        with pytest.raises(SpecError, match="a fixed input size takes no other tile"):
            Segmenter(network, backend="onnxruntime", tile=64)

    @LIBRARIES
    def test_a_network_of_open_size_takes_any_tile(self, tmp_path, backend):
        path = write_brightest_band(tmp_path / "open.onnx", open_size=True)
        image = colour_patches((100, 120))
        with Segmenter(path, backend=backend, tile=(48, 64), overlap=0.5) as segmenter:
            assert (segmenter.spec.input_hw, segmenter.spec.overlap) == ((48, 64), 0.5)
            assert (segmenter(image).mask != expected_mask(image, segmenter.spec)).mean() < 0.002

    def test_the_own_precision_may_be_asked_for(self, network):
        with Segmenter(network, backend="onnxruntime", precision="fp32") as segmenter:
            assert segmenter.spec.precision == "fp32"

    def test_a_spec_makes_a_file_without_metadata_usable(self, tmp_path):
        path = write_brightest_band(tmp_path / "bare.onnx", metadata={})
        spec = dataclasses.replace(brightest_band_spec(), name="mine")
        with Segmenter(path, backend="onnxruntime", spec=spec) as segmenter:
            assert segmenter(colour_patches((32, 32))).class_names == spec.class_names

    def test_a_model_that_does_not_exist(self, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            Segmenter(tmp_path / "absent.onnx")
        with pytest.raises(InputError, match="a folder"):
            Segmenter(tmp_path)
        with pytest.raises(InputError, match="no model 'ccl-lite9'"):
            Segmenter("ccl-lite9")


class TestStream:
    @pytest.fixture
    def folder(self, tmp_path):
        for index in range(4):
            cv2.imwrite(str(tmp_path / f"photo_{index}.png"), colour_patches((40, 60), seed=index))
        return tmp_path

    def test_every_frame_comes_in_order_with_its_result(self, segment, folder):
        results = list(segment.stream(folder))
        assert [out.frame.name for out in results] == [f"photo_{i}" for i in range(4)]
        for out in results:
            np.testing.assert_array_equal(out.mask, segment(out.frame.image).mask)

    def test_it_may_be_left_early(self, segment, folder):
        stream = segment.stream(folder)
        assert next(stream).frame.index == 0
        stream.close()

    def test_a_broken_file_raises_after_the_frames_before(self, segment, folder):
        (folder / "photo_2.png").write_bytes(b"no image")
        stream = segment.stream(folder)
        assert [next(stream).frame.index for _ in range(2)] == [0, 1]
        with pytest.raises(InputError, match=r"photo_2\.png"):
            next(stream)

    def test_wrong_arguments_are_refused_at_once(self, segment, folder):
        with pytest.raises(InputError, match="policy='lates'; did you mean 'latest'"):
            segment.stream(folder, policy="lates")
        with pytest.raises(InputError, match="no sources"):
            segment.stream({})
        with pytest.raises(SourceError, match="no such file"):
            segment.stream(folder / "absent")


def test_two_segmenters_live_side_by_side(network, segment):
    image = colour_patches((64, 64))
    with Segmenter(network, backend="openvino") as other:
        np.testing.assert_array_equal(segment(image).mask, other(image).mask)


def test_a_closed_segmenter_says_so(network):
    segmenter = Segmenter(network, backend="onnxruntime")
    segmenter.close()
    segmenter.close()
    with pytest.raises(BackendError, match="closed"):
        segmenter(colour_patches((32, 32)))


@pytest.mark.real_data
def test_backends_agree_on_a_real_frame(network, real_data):
    image = cv2.imread(str(real_data / "dubai" / "images" / "tile2_part005.jpg"))
    masks = []
    for backend in ("onnxruntime", "openvino"):
        with Segmenter(network, backend=backend) as segmenter:
            masks.append(segmenter(image).mask)
    assert masks[0].shape == image.shape[:2]
    assert (masks[0] != masks[1]).mean() < 0.001


def test_many_frames_do_not_grow_the_memory(segment):
    image = colour_patches((128, 128))
    for _ in range(3):
        segment(image)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(50):
        segment(image)
    gc.collect()
    assert len(gc.get_objects()) - before < 100


def test_nothing_is_logged_per_frame_above_debug(segment, caplog):
    with caplog.at_level(logging.INFO, logger="cclseg"):
        segment(colour_patches((64, 64)))
    assert not caplog.records
