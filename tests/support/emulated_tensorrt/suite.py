"""The TensorRT backend on an emulated driver and library; started by test_tensorrt_backend.py."""

import ctypes
import json

import numpy as np
import pytest
from contracts import BackendContract
from engines import write_engine
from networks import block_means, colour_patches

from cclseg.backends.choose import load_backend
from cclseg.cuda_devices import read_cuda
from cclseg.errors import BackendError, EngineMismatchError, SpecError
from cclseg.gpu.device import Device
from cclseg.segmenter import Segmenter
from cclseg.symmetries import SymmetricBackend

TensorRtBackend = load_backend("tensorrt")
driver = ctypes.CDLL("libcuda.so.1")


def engine_for(folder, batches, *, channels=3, record=None, **content):
    plan = json.dumps({"batches": batches, "channels": channels, **content}).encode()
    return write_engine(folder, plan=plan, **(record or {}))


class EngineContract(BackendContract):
    device = "cuda:0"
    batches: tuple[int, int, int]

    @pytest.fixture
    def backend(self, tmp_path):
        assert driver.emulated_live() == 0
        with TensorRtBackend.open(engine_for(tmp_path, self.batches)) as backend:
            yield backend
        assert driver.emulated_live() == 0  # nothing is left on the device

    def test_it_runs_as_many_tiles_at_once_as_it_was_built_for(self, backend):
        assert backend.tiles_per_call == self.batches[2]


class TestOpenBatch(EngineContract):
    batches = (1, 1, 4)


class TestOneTile(EngineContract):
    batches = (1, 1, 1)


class TestFixedBatch(EngineContract):
    batches = (4, 4, 4)


class TestAtLeastTwoTiles(EngineContract):
    batches = (2, 3, 5)


class TestAveraged(BackendContract):
    device = "cuda:0"

    @pytest.fixture
    def backend(self, tmp_path):
        engine = TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4)))
        with SymmetricBackend(engine, "d4") as backend:
            yield backend
        assert driver.emulated_live() == 0

    def test_calls_overlap(self, backend):
        images = np.random.default_rng(3).normal(size=(3, 1, 3, 32, 32)).astype(np.float32)
        collects = [backend.submit(one) for one in images]  # of two calls of the engine each
        for collect, one in zip(collects, images, strict=True):
            np.testing.assert_allclose(collect(), block_means(one), atol=1e-5)


def test_images_need_not_be_contiguous(tmp_path):
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 64)).astype(np.float32)[..., ::2]
    with TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4))) as backend:
        np.testing.assert_allclose(backend.infer(images), block_means(images), atol=1e-5)


def test_two_engines_run_side_by_side(tmp_path):
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    path = engine_for(tmp_path, (1, 1, 4))
    with TensorRtBackend.open(path) as one, TensorRtBackend.open(path) as other:
        np.testing.assert_array_equal(one.infer(images), other.infer(images[::-1])[::-1])


def test_an_engine_that_the_library_refuses_leaves_nothing_behind(tmp_path):
    with pytest.raises(BackendError, match="Serialization assertion failed: magic tag; build it"):
        TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4), broken=1))
    assert driver.emulated_live() == 0


def test_only_a_version_compatible_engine_may_bring_code(tmp_path):
    record = {"version_compatible": True}
    with TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4), record=record, host_code=True)):
        pass
    with pytest.raises(BackendError, match="host code is not as allowed"):
        TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4), host_code=True))


def test_an_engine_unlike_its_spec_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"images \(\?, 4, 32, 32\)"):
        TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4), channels=4))
    assert driver.emulated_live() == 0


def test_an_engine_without_a_spec_asks_for_one(tmp_path):
    with pytest.raises(SpecError, match="give a ModelSpec"):
        TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4), record={"spec": None}))


def test_an_inference_that_fails_says_why(tmp_path):
    backend = TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4), fails=True))
    with backend, pytest.raises(BackendError, match="Cask convolution execution"):
        backend.infer(np.zeros((1, 3, 32, 32), np.float32))


def test_an_engine_of_another_device_is_refused(tmp_path):
    path = engine_for(tmp_path, (1, 1, 4), record={"capability": (9, 0), "device": "H200"})
    with pytest.raises(EngineMismatchError, match=r"9\.0 \(H200\), this device has 8\.7 \(Orin\)"):
        TensorRtBackend.open(path)


def test_the_driver_names_its_device():
    found = read_cuda()
    assert found.cuda == (13, 0)
    assert [(d.name, d.capability, d.memory_bytes) for d in found.devices] == [
        ("Orin", (8, 7), 8 << 30)
    ]


def images_of(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3, 32, 32)).astype(np.float32)


def test_calls_overlap_and_come_back_in_any_order(tmp_path):
    with TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4))) as backend:
        assert backend.calls_in_flight == 2
        for turn in range(4):
            some, more = images_of(4, turn), images_of(3, turn + 10)
            first, second = backend.submit(some), backend.submit(more)
            some_means, more_means = block_means(some), block_means(more)
            some[:] = more[:] = 0  # the images may be reused at once
            assert driver.emulated_pending() > 0
            np.testing.assert_allclose(second(), more_means, atol=1e-5)
            np.testing.assert_allclose(first(), some_means, atol=1e-5)


def test_more_calls_than_buffers_wait_for_the_first(tmp_path):
    with TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4))) as backend:
        inputs = [images_of(1 + seed % 4, seed) for seed in range(7)]
        collects = [backend.submit(images) for images in inputs]
        assert backend.device_ms is None
        for images, collect in zip(inputs, collects, strict=True):
            np.testing.assert_allclose(collect(), block_means(images), atol=1e-5)


def test_the_device_s_time_is_between_two_events(tmp_path):
    with TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4))) as backend:
        backend.infer(images_of(9))
        assert backend.device_ms > 0


def test_results_outlive_the_backend(tmp_path):
    with TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4))) as backend:
        collect = backend.submit(images_of(2))
    np.testing.assert_allclose(collect(), block_means(images_of(2)), atol=1e-5)
    assert driver.emulated_live() == 0


def test_a_batch_is_a_graph_from_its_second_time_in_a_set_on(tmp_path):
    with TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4))) as backend:
        before = driver.emulated_graph_launches()
        for seed in range(3 * backend.calls_in_flight):
            images = images_of(4, seed)
            np.testing.assert_allclose(backend.infer(images), block_means(images), atol=1e-5)
        assert driver.emulated_graph_launches() - before == 2 * backend.calls_in_flight


def test_an_engine_that_makes_no_graphs_says_why_once(tmp_path, caplog):
    driver.emulated_allow_captures(0)
    try:
        with TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4))) as backend:
            for count in (1, 4, 1, 4, 1, 4, 1, 4):
                found = backend.infer(images_of(count))
                np.testing.assert_allclose(found, block_means(images_of(count)), atol=1e-5)
    finally:
        driver.emulated_allow_captures(1)
    warnings = [record.getMessage() for record in caplog.records if "graphs" in record.getMessage()]
    assert len(warnings) == 1
    assert "cuStreamBeginCapture" in warnings[0]


def test_the_context_of_the_caller_is_used(tmp_path):
    with Device() as own, own.current():
        live = driver.emulated_live()
        with TensorRtBackend.open(engine_for(tmp_path, (1, 1, 4))) as backend:
            assert backend.infer(images_of(1)).any()
        assert driver.emulated_live() == live
    assert driver.emulated_live() == 0


def test_a_stream_overlaps_the_calls_of_its_frames(tmp_path):
    frames = [colour_patches((64, 96), seed=seed) for seed in range(9)]
    with Segmenter.from_backend(TensorRtBackend.open(engine_for(tmp_path, (1, 1, 2)))) as segment:
        alone = [segment(frame).mask for frame in frames]
        with segment.stream(frames) as stream:
            together = [out.mask for out in stream]
    np.testing.assert_array_equal(together, alone)
