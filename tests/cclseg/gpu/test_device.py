"""The device layer keeps its contract by each library that speaks to the driver."""

from __future__ import annotations

from importlib.util import find_spec

import emulated_process
import pytest

from cclseg.cuda_devices import read_cuda
from cclseg.errors import CudaError, InputError, MissingDependencyError
from cclseg.gpu.api import open_api
from cclseg.gpu.nvrtc import Nvrtc

_MODULES = {"cuda-python": "cuda", "pycuda": "pycuda"}


@pytest.mark.parametrize("library", ["ctypes", "cuda-python", "pycuda"])
def test_the_contract_on_an_emulated_device(library, tmp_path):
    if library in _MODULES and not find_spec(_MODULES[library]):
        pytest.skip(f"{library} is not installed")
    try:
        Nvrtc()
    except MissingDependencyError as error:
        pytest.skip(f"{error} (group test-trt)")
    suite = emulated_process.HERE / "gpu_suite.py"
    emulated_process.run_suite(suite, CCLSEG_CUDA=library, CCLSEG_KERNEL_CACHE=str(tmp_path))


def test_an_unknown_library_is_refused():
    with pytest.raises(InputError, match="did you mean 'pycuda'"):
        open_api("picuda")


@pytest.mark.parametrize("library", ["ctypes", "cuda-python"])
def test_without_a_driver_every_library_says_so(library):
    if find_spec(_MODULES.get(library, "ctypes")) is None:
        pytest.skip(f"{library} is not installed")
    if read_cuda() is not None:
        pytest.skip("this machine has an NVIDIA driver")
    with pytest.raises(CudaError, match="needs the NVIDIA driver"):
        open_api(library)
