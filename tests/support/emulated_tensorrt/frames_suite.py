"""Frames that stay on the emulated device; started by test_device_frames.py."""

import ctypes
import gc
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from cuda_caller import import_pycuda
from device_arrays import CudaArray, DlpackArray, bytes_at
from networks import colour_patches
from suite import engine_for

from cclseg.backends.choose import load_backend
from cclseg.errors import BackendError, CudaError, InputError
from cclseg.gpu import dlpack
from cclseg.gpu.device import Device
from cclseg.postprocess import confidence, enlarged
from cclseg.segmenter import Segmenter
from cclseg.symmetries import SymmetricBackend
from cclseg.tiled import Assembly, TileCutter

TensorRtBackend = load_backend("tensorrt")
driver = ctypes.CDLL("libcuda.so.1")

SIZES = [(1, 1), (7, 13), (32, 32), (33, 128), (100, 75)]


@pytest.fixture
def device():
    """A context of the caller's, with memory and a stream of its own."""
    assert driver.emulated_live() == 0
    with Device() as own, own.current():
        yield own
    assert driver.emulated_live() == 0


@pytest.fixture
def segment(device, tmp_path):
    with Segmenter.from_backend(TensorRtBackend.open(engine_for(tmp_path, (1, 2, 3)))) as opened:
        yield opened


def on_the_processor(segment, frame, **options):
    """The blended logits, all steps but the network's done by numpy and OpenCV."""
    cutter = TileCutter(segment.spec)
    plan = cutter.load(frame, **options)
    assembly = Assembly(plan, segment.spec)
    tile = np.empty((1, 3, *segment.spec.input_hw), np.float32)
    for index, corner in enumerate(plan.corners):
        cutter.cut(corner, tile[0])
        assembly.add(index, segment._backend.infer(tile)[0])
    return assembly.segmentation(frame)._logits


def expected_mask(segment, frame, **options):
    logits = on_the_processor(segment, frame, **options)
    return enlarged(logits, stride=4, size_hw=frame.shape[:2]).argmax(axis=0)


@pytest.mark.parametrize("size_hw", SIZES, ids=str)
@pytest.mark.parametrize("channels", ["bgr", "rgb"])
def test_masks_are_those_of_the_definition(segment, size_hw, channels):
    for seed in range(3):
        frame = colour_patches(size_hw, seed=seed)
        out = segment(frame, channels=channels)
        assert out.mask.dtype == np.uint8
        expected = expected_mask(segment, frame, channels=channels)
        np.testing.assert_array_equal(out.mask, expected)


def test_logits_and_confidence_are_those_of_the_processor(segment):
    frame = colour_patches((70, 90))
    out = segment(frame)
    logits = on_the_processor(segment, frame)
    np.testing.assert_array_equal(out._logits, logits)
    own = confidence(logits, stride=4, size_hw=(70, 90))
    # Logits of magnitude <= 220 are enlarged in another order: each differs by 3e-5 at most.
    np.testing.assert_allclose(out.confidence, own, rtol=1e-4)
    assert set(out.timing) == {"queue", "device"}


def test_frames_of_changing_sizes(segment):
    for seed, size_hw in enumerate(
        [(40, 50), (7, 9), (1, 1), (40, 50), (100, 30), (9, 9), (8, 8), (40, 50)] * 2
    ):
        frame = colour_patches(size_hw, seed=seed)
        np.testing.assert_array_equal(segment(frame).mask, expected_mask(segment, frame))


def test_streams_of_a_few_sizes_allocate_nothing(segment):
    sizes = [(50, 60), (40, 30), (7, 13)]
    for round_ in range(8):
        for size_hw in sizes:
            segment(colour_patches(size_hw))
        gc.collect()
        if round_ == 3:
            live = driver.emulated_allocated()
    assert driver.emulated_allocated() == live


def test_a_frame_of_the_size_before_allocates_nothing(segment):
    for seed in range(4):
        segment(colour_patches((50, 60), seed=seed))
    gc.collect()
    live = driver.emulated_live()
    kept = [segment(colour_patches((50, 60), seed=seed)) for seed in range(4)]
    assert driver.emulated_live() > live  # each result that is kept has memory of its own
    masks = [bytes_at(out.device_mask._address, (50, 60), np.uint8) for out in kept]
    for out, mask in zip(kept, masks, strict=True):
        np.testing.assert_array_equal(mask, out.mask)
    del kept, out
    gc.collect()
    live = driver.emulated_live()
    for seed in range(9):
        segment(colour_patches((50, 60), seed=seed))
    assert driver.emulated_live() == live


class TestArraysOfOthers:
    @pytest.fixture
    def frame(self):
        return colour_patches((50, 70), seed=3)

    @pytest.fixture
    def stream(self, device):
        return device.stream()

    @pytest.fixture
    def address(self, device, stream, frame):
        """The frame on the device, once the caller's stream has come so far."""
        pinned = device.pinned(frame.shape, np.uint8)
        pinned[:] = frame
        address = device.allocate(frame.nbytes)
        stream.upload(address, pinned)
        return address

    def test_a_cuda_array_is_read_behind_its_stream_without_a_wait(
        self, segment, frame, stream, address
    ):
        out = segment(CudaArray(address, frame.shape, stream=stream.handle))
        np.testing.assert_array_equal(out.mask, expected_mask(segment, frame))

    def test_the_caller_s_stream_is_never_waited_for(self, device, segment, stream, address, frame):
        collect = segment._submit_frame(CudaArray(address, frame.shape, stream=stream.handle))
        behind = device.pinned((4,), np.uint8)
        stream.download(address, behind)
        collect()
        assert driver.emulated_pending() == 1  # what came later in that stream is still there
        stream.synchronize()

    def test_a_complete_cuda_array_names_no_stream(self, segment, frame, stream, address):
        stream.synchronize()
        out = segment(CudaArray(address, frame.shape))
        np.testing.assert_array_equal(out.mask, expected_mask(segment, frame))

    def test_an_array_without_a_stream_is_read_behind_the_default_one(self, device, segment, frame):
        pinned = device.pinned(frame.shape, np.uint8)
        pinned[:] = frame
        address = device.allocate(frame.nbytes)
        device.api.copy_to_device(address, pinned.ctypes.data, pinned.nbytes, 0)
        out = segment(CudaArray(address, frame.shape))
        np.testing.assert_array_equal(out.mask, expected_mask(segment, frame))

    def test_planes_on_the_device_are_read_where_they_lie(self, device, segment, frame):
        planes = np.ascontiguousarray(frame.transpose(2, 0, 1))
        address, stream = device.allocate(planes.nbytes), device.stream()
        stream.upload(address, planes)
        strides = (70, 1, 50 * 70)
        out = segment(CudaArray(address, frame.shape, strides=strides, stream=stream.handle))
        np.testing.assert_array_equal(out.mask, expected_mask(segment, frame))

    def test_dlpack_is_told_our_stream(self, device, segment, frame, stream, address):
        event = device.event()
        array = DlpackArray(
            address, frame.shape, follow=lambda handle: stream.precede(handle, event)
        )
        out = segment(array)
        np.testing.assert_array_equal(out.mask, expected_mask(segment, frame))
        assert driver.emulated_is_stream(ctypes.c_void_p(array.streams[0]))
        assert not dlpack._exports  # the capsule is given back

    def test_a_pycuda_array(self, segment, frame):
        if not find_spec("pycuda"):
            pytest.skip("pycuda is not installed")
        import_pycuda()
        from pycuda import gpuarray

        array = gpuarray.GPUArray(frame.shape, np.uint8, allocator=_borrowed)
        array.set(frame)
        np.testing.assert_array_equal(segment(array).mask, expected_mask(segment, frame))

    def test_a_torch_tensor_on_the_host(self, segment, frame):
        out = segment(torch.from_numpy(frame.copy()))
        np.testing.assert_array_equal(out.mask, expected_mask(segment, frame))

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"stream": 0}, "stream 0"),
            ({"dtype": np.float32}, "is float32"),
            ({"shape": (50, 70)}, r"\(50, 70\)"),
            ({"shape": (50, 70, 4)}, "alpha channel"),
        ],
    )
    def test_an_array_that_does_not_fit_is_refused(self, segment, address, change, reason):
        with pytest.raises(InputError, match=reason):
            segment(CudaArray(**{"address": address, "shape": (50, 70, 3)} | change))

    def test_an_array_on_another_gpu_is_refused(self, segment, address):
        with pytest.raises(InputError, match="lies on GPU 1, and the network on GPU 0"):
            segment(DlpackArray(address, (50, 70, 3), number=1))


def _borrowed(size_bytes):
    """Memory of the device for pycuda, whose own allocator asks for a context of its own."""
    address = ctypes.c_void_p()
    assert driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size_bytes)) == 0
    return _Memory(address.value)


class _Memory(int):
    def __del__(self):
        driver.cuMemFree_v2(ctypes.c_void_p(int(self)))


class TestDeviceMask:
    def test_it_is_the_mask_for_those_who_read_the_interface(self, segment):
        out = segment(colour_patches((50, 70)))
        described = out.device_mask.__cuda_array_interface__
        assert described["stream"] is None
        assert described["version"] == 3
        found = bytes_at(described["data"][0], described["shape"], described["typestr"])
        np.testing.assert_array_equal(found, out.mask)

    def test_it_is_the_mask_for_those_who_speak_dlpack(self, segment):
        out = segment(colour_patches((50, 70)))
        assert out.device_mask.__dlpack_device__() == (dlpack.CUDA, 0)
        seen = dlpack.read_capsule(out.device_mask.__dlpack__(stream=1))
        assert (seen.shape, seen.strides, seen.dtype) == ((50, 70), (70, 1), np.uint8)
        np.testing.assert_array_equal(bytes_at(seen.address, seen.shape, seen.dtype), out.mask)

    def test_its_memory_is_not_used_again_while_it_is_held(self, segment):
        mask = segment(colour_patches((50, 70), seed=1)).device_mask
        before = bytes_at(mask._address, mask.shape, mask.dtype)
        for seed in range(2, 7):
            segment(colour_patches((50, 70), seed=seed))
        np.testing.assert_array_equal(bytes_at(mask._address, mask.shape, mask.dtype), before)

    def test_it_can_be_the_next_frame(self, segment):
        mask = segment(colour_patches((50, 70))).device_mask
        with pytest.raises(InputError, match=r"the frame is \(50, 70\)"):
            segment(mask)

    def test_it_ends_with_its_segmenter(self, device, tmp_path):
        backend = TensorRtBackend.open(engine_for(tmp_path, (1, 1, 1)))
        with Segmenter.from_backend(backend) as segment:
            out = segment(colour_patches((50, 70)))
        assert out.mask.shape == (50, 70)
        for ask in (
            lambda: out.device_mask.__cuda_array_interface__,
            out.device_mask.__dlpack__,
            lambda: out.confidence,
        ):
            with pytest.raises(CudaError, match="its segmenter is closed"):
                ask()


def test_frames_overlap_and_a_third_waits_for_the_first(segment):
    frames = [colour_patches((50, 70), seed=seed) for seed in range(5)]
    collects = [segment._submit_frame(frame) for frame in frames]
    assert driver.emulated_pending() > 0
    for frame, collect in zip(frames, collects, strict=True):
        np.testing.assert_array_equal(collect().mask, expected_mask(segment, frame))


def test_a_closed_network_says_so(device, tmp_path):
    segment = Segmenter.from_backend(TensorRtBackend.open(engine_for(tmp_path, (1, 1, 1))))
    collect = segment._submit_frame(colour_patches((50, 70)))
    segment.close()
    with pytest.raises(BackendError, match="closed; open it again"):
        segment(colour_patches((50, 70)))
    with pytest.raises(CudaError, match="its segmenter is closed"):
        collect()


def test_a_network_that_fails_lends_no_memory_that_is_still_written(device, tmp_path):
    backend = TensorRtBackend.open(engine_for(tmp_path, (1, 1, 1), fails=True))
    with Segmenter.from_backend(backend) as segment:
        with pytest.raises(BackendError, match="Cask convolution execution"):
            segment(colour_patches((50, 70)))
        assert driver.emulated_pending() == 0


class TestStreams:
    @pytest.mark.parametrize("policy", ["all", "latest"])
    def test_results_are_those_of_single_frames(self, segment, policy):
        frames = [colour_patches((64, 96), seed=seed) for seed in range(9)]
        with segment.stream(frames, policy=policy) as stream:
            found = {out.frame.index: out for out in stream}
        assert list(found) == sorted(found)
        assert 8 in found
        assert policy == "latest" or len(found) == len(frames)
        for index, out in found.items():
            np.testing.assert_array_equal(out.mask, expected_mask(segment, frames[index]))
            assert {"queue", "device"} <= set(out.timing)

    def test_several_streams_share_the_device(self, segment):
        frames = {
            "a": [colour_patches((64, 96), seed=seed) for seed in range(5)],
            "b": [colour_patches((33, 40), seed=seed) for seed in range(5, 9)],
        }
        with segment.stream(frames) as stream:
            results = list(stream)
        # Only now: a backend serves one thread at a time, and the stream had threads of its own.
        for out in results:
            frame = frames[out.frame.stream][out.frame.index]
            np.testing.assert_array_equal(out.mask, expected_mask(segment, frame))
        assert stream.stats().delivered == 9

    def test_a_frame_that_does_not_fit_is_reported_and_the_others_come(self, segment):
        frames = [colour_patches((64, 96), seed=seed) for seed in range(4)]
        frames[2] = np.zeros((8, 8, 4), np.uint8)
        heard = []
        with segment.stream(
            frames, on_error=lambda name, error: heard.append(str(error))
        ) as stream:
            indices = [out.frame.index for out in stream]
        assert indices == [0, 1, 3]
        assert "alpha channel" in heard[0]

    def test_without_a_listener_it_ends_the_stream_behind_the_frames_before(self, segment):
        frames = [colour_patches((64, 96)), colour_patches((64, 96)), np.zeros((8, 8, 4), np.uint8)]
        with segment.stream(frames) as stream:
            assert [next(stream).frame.index for _ in range(2)] == [0, 1]
            with pytest.raises(InputError, match="alpha channel"):
                next(stream)


def test_averaged_over_symmetries_the_processor_prepares_frames_and_says_so(
    device, tmp_path, caplog
):
    frame = colour_patches((50, 70))
    engine = TensorRtBackend.open(engine_for(tmp_path, (1, 2, 3)))
    with Segmenter.from_backend(SymmetricBackend(engine, "d4")) as segment:
        out = segment(frame)
        np.testing.assert_array_equal(out._logits, on_the_processor(segment, frame))
        assert out.device_mask is None
        with pytest.raises(InputError, match="copy it to the host"):
            segment(CudaArray(4096, (8, 8, 3)))
    assert "on the processor, not the GPU" in caplog.text


def test_refined_frames_are_prepared_by_the_processor_and_the_log_says_so(device, tmp_path, caplog):
    engine = TensorRtBackend.open(engine_for(tmp_path, (1, 2, 3)))
    with Segmenter.from_backend(engine, refine="fast") as segment:
        out = segment(colour_patches((50, 70)))
        assert out.timing["refine"] > 0
        assert out.device_mask is None
        with pytest.raises(InputError, match="copy it to the host"):
            segment(CudaArray(4096, (8, 8, 3)))
    assert "refine= prepare frames on the processor, not the GPU" in caplog.text


def test_without_nvrtc_the_processor_prepares_frames_and_says_so(
    device, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("cclseg.gpu.nvrtc._candidates", lambda: ["nothing.so"])
    frame = colour_patches((50, 70))
    backend = TensorRtBackend.open(engine_for(tmp_path, (1, 2, 3)))
    with Segmenter.from_backend(backend) as segment:
        out = segment(frame)
        np.testing.assert_array_equal(out._logits, on_the_processor(segment, frame))
        assert out.device_mask is None
    assert "prepared by the processor" in caplog.text
