"""Each compiled form of what happens outside the network, against the definitions in numpy."""

from __future__ import annotations

import platform
from functools import cache

import numpy as np
import pytest
from frame_contract import FrameContract
from hypothesis import given
from hypothesis import strategies as st
from native_libraries import native_library

from cclseg import frame_kernels
from cclseg.errors import BackendError, InputError
from cclseg.frame_kernels import (
    CHOICE_VARIABLE,
    FrameKernel,
    KernelWindow,
    frame_kernel,
    kernel_names,
)
from cclseg.ops_build import FOLDER_VARIABLE
from cclseg.postprocess import enlarged

KERNELS = {
    "x86_64": ("avx512", "avx2", "portable"),
    "aarch64": ("neon",),
}.get(platform.machine(), ("portable",))
GUARD = 64


@cache
def kernel_of(name):
    path = native_library("onnxruntime")
    if name not in kernel_names(path):
        pytest.skip(f"this processor has no {name}")
    return FrameKernel(frame_kernels._opened(path), name, path)


def guarded(shape, dtype, value):
    """An array between two strips that must keep their value, and a look at these."""
    memory = np.full(int(np.prod(shape)) + 2 * GUARD, value, dtype)
    strips = memory[:GUARD], memory[-GUARD:]
    return memory[GUARD:-GUARD].reshape(shape), lambda: all((s == value).all() for s in strips)


@pytest.mark.parametrize("name", KERNELS, scope="class")
class TestFrameKernels(FrameContract):
    @pytest.fixture(autouse=True)
    def _choose(self, name):
        self.kernel = kernel_of(name)

    def class_ids(self, logits, *, stride, size_hw):
        mask, is_whole = guarded(size_hw, np.uint8 if len(logits) <= 255 else np.uint16, 99)
        self.kernel.class_ids(logits, mask, stride=stride)
        assert is_whole()
        return mask

    def normalise(self, image, places, mean, deviation, corner, tile_hw):
        out, is_whole = guarded((len(places), *tile_hw), np.float32, 99)
        self.kernel.normalise(KernelWindow(image, places, mean, deviation), *corner, out)
        assert is_whole()
        return out

    def add(self, logits, canvas, corner, weights):
        sums, is_whole = guarded(canvas.shape, np.float32, 99)
        sums[:] = canvas
        self.kernel.add_tile(logits, sums, corner, weights)
        assert is_whole()
        return sums


@given(data=st.data())
def test_any_logits_give_the_classes_of_the_definition(data):
    kernel = kernel_of(data.draw(st.sampled_from(kernel_names(native_library("onnxruntime")))))
    stride = data.draw(st.integers(1, 9))
    classes, rows, columns = (data.draw(st.integers(1, most)) for most in (6, 12, 40))
    lacks = [data.draw(st.integers(0, stride - 1)) for _ in range(2)]
    size_hw = rows * stride - lacks[0], columns * stride - lacks[1]
    steps = data.draw(st.sampled_from([1, 3, 1000, 1 << 22]))  # few different values make ties
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    offset = data.draw(st.sampled_from([0, 1e-30, 1000]))
    logits = (rng.integers(-steps, steps + 1, (classes, rows, columns)) / steps + offset).astype(
        np.float32
    )
    mask = np.empty(size_hw, np.uint8)
    kernel.class_ids(logits, mask, stride=stride)
    expected = enlarged(logits, stride=stride, size_hw=size_hw).argmax(axis=0)
    np.testing.assert_array_equal(mask, expected)


def test_the_last_kernel_works_everywhere():
    path = native_library("onnxruntime")
    library = frame_kernels._opened(path)
    names = []
    while name := library.cclseg_frame_kernel_name(len(names)):
        names.append(name.decode())
    assert tuple(names) == KERNELS
    assert kernel_names(path)[-1] == KERNELS[-1]


@pytest.mark.parametrize("view", [np.s_[::-1, ::-1], np.s_[::2, 1::3], np.s_[:, :, ::-1]])
def test_views_are_read_in_place(view):
    image = np.random.default_rng(0).integers(0, 256, (30, 60, 3), np.uint8)[view]
    ones = np.ones(3, np.float32)
    out = np.empty((3, 12, 12), np.float32)
    kernel_of(KERNELS[-1]).normalise(KernelWindow(image, (0, 1, 2), ones, ones), 1, 2, out)
    np.testing.assert_array_equal(out, image[1:13, 2:14].transpose(2, 0, 1) - np.float32(1))


def test_arrays_that_do_not_fit_are_refused():
    kernel = kernel_of(KERNELS[-1])
    canvas, logits = np.zeros((2, 8, 8), np.float32), np.zeros((2, 4, 4), np.float32)
    ones = np.ones(4, np.float32)
    mask = np.empty((8, 8), np.uint8)
    window = KernelWindow(np.zeros((9, 9, 3), np.uint8), (0, 1, 2), ones[:3], ones[:3])
    calls = [
        lambda: kernel.add_tile(logits, canvas, (5, 0), (ones, ones)),
        lambda: kernel.add_tile(logits, canvas, (0, -1), (ones, ones)),
        lambda: kernel.add_tile(logits, canvas, (0, 0), (ones[:3], ones)),
        lambda: kernel.add_tile(logits[:1], canvas, (0, 0), (ones, ones)),
        lambda: kernel.add_tile(logits.astype(np.float64), canvas, (0, 0), (ones, ones)),
        lambda: kernel.class_ids(logits, mask.astype(np.uint16), stride=2),
        lambda: kernel.class_ids(logits, mask[:, ::2], stride=2),
        lambda: kernel.normalise(window, 0, 0, np.empty((2, 4, 4), np.float32)),
        lambda: kernel.normalise(window, 0, 0, np.empty((3, 4, 8), np.float32)[:, :, ::2]),
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()


def test_the_environment_chooses(monkeypatch):
    path = native_library("onnxruntime")
    monkeypatch.setenv(FOLDER_VARIABLE, str(path.parent))
    monkeypatch.delenv(CHOICE_VARIABLE, raising=False)
    assert frame_kernel().name == kernel_names(path)[0]
    monkeypatch.setenv(CHOICE_VARIABLE, KERNELS[-1])
    assert frame_kernel().name == KERNELS[-1]
    monkeypatch.setenv(CHOICE_VARIABLE, "opencv")
    assert frame_kernel() is None
    monkeypatch.setenv(CHOICE_VARIABLE, "opencl")
    with pytest.raises(InputError, match="did you mean 'opencv'"):
        frame_kernel()


def test_without_a_library_opencv_is_used_and_nothing_else_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.delenv(CHOICE_VARIABLE, raising=False)
    assert frame_kernel() is None
    monkeypatch.setenv(CHOICE_VARIABLE, KERNELS[0])
    with pytest.raises(InputError, match="cclseg ops build"):
        frame_kernel()


def test_a_damaged_library_is_no_reason_to_go_without(monkeypatch, tmp_path):
    (tmp_path / native_library("onnxruntime").name).write_bytes(b"not a library")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.delenv(CHOICE_VARIABLE, raising=False)
    with pytest.raises(BackendError, match="compile it again"):
        frame_kernel()
