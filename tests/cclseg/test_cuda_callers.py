"""The kernels in the CUDA context of others, by a driver that emulates one device."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cuda_emulation
import pytest
from emulated_device import driver_folder

from cclseg.errors import MissingDependencyError
from cclseg.gpu.nvrtc import Nvrtc

CALLER = Path(cuda_emulation.__file__).with_name("cuda_caller.py")


@pytest.fixture(scope="module")
def environment():
    if not cuda_emulation.has_compiler():
        pytest.skip("no g++ to compile the emulated driver")
    try:
        Nvrtc()
    except MissingDependencyError as error:
        pytest.skip(f"{error} (group test-trt)")
    return os.environ | {"LD_LIBRARY_PATH": str(driver_folder())}


@pytest.mark.parametrize("owner", ["ctypes", "cuda-python", "pycuda"])
def test_the_kernels_work_in_the_context_memory_and_stream_of_others(environment, owner):
    if owner == "cuda-python" and not (find_spec("cuda") and find_spec("cuda.bindings")):
        pytest.skip("cuda-python is not installed (group test-trt)")
    if owner == "pycuda" and not find_spec("pycuda"):
        pytest.skip("pycuda is not installed (pip builds it against a CUDA toolkit)")
    answer = subprocess.run(
        [sys.executable, CALLER, owner],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "2 launches\n"


def test_without_a_context_the_driver_s_reason_is_passed_on(environment):
    code = "from cclseg.correlation_cuda import CudaCorrelation; CudaCorrelation()"
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "CudaError: no CUDA context is current in this thread; make one with" in answer.stderr
