"""Frames in the memory of a GPU: on an emulated device, and refused where there is none."""

from __future__ import annotations

import gc
from importlib.util import find_spec

import emulated_process
import numpy as np
import pytest
import torch
from device_arrays import CudaArray, DlpackArray
from networks import colour_patches

from cclseg.errors import InputError, MissingDependencyError
from cclseg.gpu import dlpack
from cclseg.gpu.arrays import is_on_gpu
from cclseg.gpu.nvrtc import Nvrtc
from cclseg.segmenter import Segmenter

EMULATION = emulated_process.HERE / "emulated_tensorrt"


def test_frames_stay_on_an_emulated_device(tmp_path):
    try:
        Nvrtc()
    except MissingDependencyError as error:
        pytest.skip(f"{error} (group test-trt)")
    emulated_process.run_suite(
        EMULATION / "frames_suite.py",
        folders=(EMULATION,),
        skipped=0 if find_spec("pycuda") else 1,  # an array of pycuda's own
        CCLSEG_KERNEL_CACHE=str(tmp_path),
    )


@pytest.fixture(scope="module")
def segment(network):
    with Segmenter(network, backend="onnxruntime", threads=1) as opened:
        yield opened


class TestOnTheHost:
    @pytest.mark.parametrize(
        "array",
        [CudaArray(4096, (8, 8, 3)), DlpackArray(4096, (8, 8, 3))],
        ids=["interface", "dlpack"],
    )
    def test_an_array_on_a_gpu_is_refused_with_advice(self, segment, array):
        assert is_on_gpu(array)
        with pytest.raises(InputError, match="lies in the memory of a GPU, and the network runs"):
            segment(array)

    def test_a_torch_tensor_is_read_without_a_copy_of_its_type(self, segment):
        frame = colour_patches((40, 50))
        out = segment(torch.from_numpy(frame.copy()))
        np.testing.assert_array_equal(out.mask, segment(frame).mask)
        assert out.device_mask is None

    def test_a_permuted_torch_tensor(self, segment):
        frame = colour_patches((40, 50))
        planes = torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))
        out = segment(planes.permute(1, 2, 0))
        np.testing.assert_array_equal(out.mask, segment(frame).mask)

    def test_a_torch_tensor_of_another_type_is_refused(self, segment):
        with pytest.raises(InputError, match="is float32"):
            segment(torch.zeros(8, 8, 3))

    def test_a_tensor_that_its_library_does_not_hand_out_is_refused(self, segment):
        with pytest.raises(InputError, match="cannot be read"):
            segment(torch.zeros(8, 8, 3, requires_grad=True))

    def test_an_array_on_another_kind_of_device_is_refused(self, segment):
        with pytest.raises(InputError, match="DLPack's kind 7"):
            segment(DlpackArray(4096, (8, 8, 3), kind=7))


class TestCapsules:
    """Capsules of ours, taken by libraries that check them."""

    class OnHost:
        def __init__(self, array):
            self.array = array

        def __dlpack_device__(self):
            return dlpack.CPU, 0

        def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
            array = self.array
            seen = dlpack.Exported(
                array.ctypes.data, array.shape, array.strides, array.dtype, (dlpack.CPU, 0)
            )
            return dlpack.make_capsule(seen, self)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int64])
    def test_numpy_and_torch_read_them_and_give_them_back(self, dtype):
        array = np.arange(24, dtype=dtype).reshape(4, 6)[::2, 1::2]
        taken = [np.from_dlpack(self.OnHost(array)), torch.from_dlpack(self.OnHost(array)).numpy()]
        assert len(dlpack._exports) == 2
        for each in taken:
            np.testing.assert_array_equal(each, array)
        del taken, each
        gc.collect()
        assert not dlpack._exports

    def test_what_nobody_takes_is_given_back(self):
        capsule = self.OnHost(np.zeros(3)).__dlpack__()
        assert dlpack._exports
        del capsule
        assert not dlpack._exports

    def test_ours_are_read_as_numpy_writes_them(self):
        array = np.arange(24, dtype=np.uint16).reshape(4, 6)[:, ::2]
        seen = dlpack.read_capsule(array.__dlpack__())
        assert (seen.address, seen.shape, seen.strides) == (array.ctypes.data, (4, 3), (12, 4))
        assert (seen.dtype, seen.device) == (np.uint16, (dlpack.CPU, 0))
