"""The device layer on the emulated driver; started by test_device.py, once for each library.

The environment variable CCLSEG_CUDA names the library; see :mod:`cclseg.gpu.api`.
"""

import ctypes
import os
import threading

import numpy as np
import pytest
from cuda_caller import import_pycuda
from networks import brightest_band_spec

from cclseg.errors import CudaError, InputError
from cclseg.gpu.api import LIBRARY_VARIABLE, open_api
from cclseg.gpu.device import Device
from cclseg.gpu.image_kernels import DeviceImage, ImageKernels, band_table, plan_normalise
from cclseg.preprocess import normalised

LIBRARY = os.environ[LIBRARY_VARIABLE]
if LIBRARY == "pycuda":
    import_pycuda()
driver = ctypes.CDLL("libcuda.so.1")
driver.emulated_last_stream.restype = ctypes.c_void_p


@pytest.fixture
def device():
    assert driver.emulated_live() == 0
    with Device() as opened:
        assert opened.api.name == LIBRARY
        with opened.current():
            yield opened
    assert driver.emulated_live() == 0  # nothing is left on the device


def filled(device, value, *, shape=(5, 7)):
    array = device.pinned(shape, np.float32)
    array[:] = value
    return array


def test_it_says_what_it_is(device):
    assert (device.index, device.capability, device.multiprocessors) == (0, (8, 7), 2)
    assert not device.is_adopted


def test_what_goes_to_the_device_comes_back_after_a_wait(device):
    there, back = filled(device, 3), filled(device, 0)
    stream, address = device.stream(), device.allocate(there.nbytes)
    stream.upload(address, there)
    stream.download(address, back)
    assert not back.any()  # nobody has waited
    stream.synchronize()
    np.testing.assert_array_equal(back, 3)


def test_an_event_is_a_moment_of_its_stream(device):
    array, stream, event = filled(device, 1), device.stream(), device.event()
    address = device.allocate(array.nbytes)
    start = device.event()
    stream.record(start)
    stream.upload(address, array)
    array_back = filled(device, 0)
    stream.download(address, array_back)
    stream.record(event)
    with pytest.raises(CudaError, match=r"cuEventElapsedTime.* not ready"):
        device.api.elapsed_ms(start, event)
    device.api.synchronize_event(event)
    assert array_back.all()
    assert device.api.elapsed_ms(start, event) > 0


def test_a_stream_follows_another_without_a_wait_of_the_host(device):
    one, other, event = device.stream(), device.stream(), device.event()
    array, back = filled(device, 4), filled(device, 0)
    address = device.allocate(array.nbytes)
    waits = driver.emulated_waits()
    one.upload(address, array)
    other.follow(one.handle, event)
    other.download(address, back)
    one.follow(other.handle, device.event())
    assert driver.emulated_waits() == waits
    other.synchronize()
    np.testing.assert_array_equal(back, 4)


def test_streams_that_do_not_follow_are_not_ordered(device):
    one, other = device.stream(), device.stream()
    array, back = filled(device, 4), filled(device, 0)
    address = device.allocate(array.nbytes)
    one.upload(address, array)
    other.download(address, back)
    other.synchronize()
    assert not (back == 4).any()


def test_a_stream_of_the_caller_is_followed_and_preceded(device):
    foreign = ctypes.c_void_p()
    assert driver.cuStreamCreate(ctypes.byref(foreign), 0) == 0
    array, back = filled(device, 6), filled(device, 0)
    address, stream = device.allocate(array.nbytes), device.stream()
    device.api.copy_to_device(address, array.ctypes.data, array.nbytes, foreign.value)
    stream.follow(foreign.value, device.event())
    stream.download(address, back)
    stream.precede(foreign.value, device.event())
    driver.cuStreamSynchronize(foreign)
    np.testing.assert_array_equal(back, 6)
    driver.cuStreamDestroy_v2(foreign)


def test_a_graph_repeats_what_was_captured(device):
    array, back, stream = filled(device, 1), filled(device, 0), device.stream()
    address, graphs = device.allocate(array.nbytes), []
    with stream.capturing(graphs):
        stream.upload(address, array)
        stream.download(address, back)
    stream.synchronize()
    assert not back.any()  # captured, not done
    for value in (7, 8):
        array[:] = value
        graphs[0].queue(stream)
        stream.synchronize()
        np.testing.assert_array_equal(back, value)


def test_what_cannot_be_captured_is_an_error_and_the_stream_lives_on(device):
    stream, address, graphs = device.stream(), device.allocate(4), []
    with pytest.raises(CudaError, match="not permitted"), stream.capturing(graphs):
        stream.upload(address, np.ones(1, np.float32))  # pageable memory
    assert not graphs
    back = filled(device, 0, shape=(1,))
    stream.upload(address, np.ones(1, np.float32))
    stream.download(address, back)
    stream.synchronize()
    assert back[0] == 1


def test_pageable_memory_may_be_reused_at_once(device):
    array, back, stream = np.ones(3, np.float32), filled(device, 0, shape=(3,)), device.stream()
    address = device.allocate(array.nbytes)
    stream.upload(address, array)
    array[:] = 9
    stream.download(address, back)
    stream.synchronize()
    np.testing.assert_array_equal(back, 1)


def test_kernels_run_in_the_stream_that_is_named(device):
    spec = brightest_band_spec(tile_hw=(8, 12))
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    bands, corners = band_table(spec.mean, spec.std, (2, 1, 0)), np.zeros(2, np.int32)
    stream, kernels = device.stream(), ImageKernels(device)
    addresses = []
    for array in (image, bands, corners):
        addresses.append(device.allocate(array.nbytes))
        stream.upload(addresses[-1], array)
    tiles = device.pinned((1, 3, 8, 12), np.float32)
    target = device.allocate(tiles.nbytes)
    plan = plan_normalise(
        DeviceImage(addresses[0], image.shape, image.strides), target, tiles.shape,
        bands=addresses[1], corners=addresses[2],
    )  # fmt: skip
    kernels.queue(plan, stream=stream.handle)
    assert driver.emulated_last_stream() == stream.handle
    stream.download(target, tiles)
    stream.synchronize()
    np.testing.assert_array_equal(tiles, normalised(image, spec, channels="bgr"))


def test_memory_can_be_given_back_early(device):
    live = driver.emulated_live()
    address = device.allocate(100)
    assert driver.emulated_live() == live + 1
    device.free(address)
    assert driver.emulated_live() == live


def test_a_context_of_the_caller_is_used_and_stays(device):
    retained = driver.emulated_live()
    with Device(api=device.api) as other, other.current():
        assert other.is_adopted
        other.allocate(8)
    assert driver.emulated_live() == retained
    assert Device.of_caller().index == 0


def test_the_library_of_the_current_context_is_found(device, monkeypatch):
    monkeypatch.delenv(LIBRARY_VARIABLE)
    assert open_api().name == ("pycuda" if LIBRARY == "pycuda" else "ctypes")


def test_another_thread_may_work_on_the_device(device):
    array, back = filled(device, 5), filled(device, 0)
    failures = []

    def work():
        try:
            with device.current():
                stream, address = device.stream(), device.allocate(array.nbytes)
                stream.upload(address, array)
                stream.download(address, back)
                stream.synchronize()
        except CudaError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures
    np.testing.assert_array_equal(back, 5)


def test_without_a_context_a_caller_is_asked_for_one():
    with pytest.raises(CudaError, match="no CUDA context is current"):
        Device.of_caller()


def test_a_failure_names_the_function():
    with pytest.raises(CudaError, match="cuMemAlloc"):
        open_api().allocate(4)


def test_a_copy_beyond_its_memory_is_an_error(device):
    address, stream = device.allocate(16), device.stream()
    with pytest.raises(CudaError, match="illegal memory access"):
        stream.upload(address, np.zeros(5, np.float32))


def test_there_is_no_second_device():
    with pytest.raises(CudaError, match=r"ordinal|device"):
        Device(1)


def test_a_device_is_closed_twice():
    device = Device()
    device.close()
    device.close()
    assert driver.emulated_live() == 0


def test_an_array_with_gaps_is_refused(device):
    with pytest.raises(InputError, match="ascontiguousarray"):
        device.stream().upload(device.allocate(64), np.zeros((4, 4), np.float32)[:, ::2])
