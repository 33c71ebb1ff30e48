"""The image kernels in the compilers of real devices, and under sanitizers."""

from __future__ import annotations

import re
import subprocess

import cuda_emulation
import pytest
from native_libraries import skip_without_nvcc

from cclseg.errors import MissingDependencyError
from cclseg.gpu.image_kernels import image_source
from cclseg.gpu.nvrtc import Nvrtc
from cclseg.native_build_tensorrt import find_nvcc

KERNELS = {"normalise", "blend", "class_ids_u8", "class_ids_u16", "confidence"}


@pytest.mark.slow
def test_no_byte_is_read_or_written_out_of_bounds(tmp_path):
    if not cuda_emulation.has_compiler():
        pytest.skip("no g++ to compile the emulation")
    cuda_emulation.run_sanitized("image", tmp_path)


@pytest.mark.parametrize("arch", [75, 87, 89, 90, 100, 110, 120])
def test_nvcc_keeps_everything_in_registers(arch, tmp_path):
    skip_without_nvcc()
    source = tmp_path / "image_kernels.cu"
    source.write_text(image_source())
    answer = subprocess.run(
        [find_nvcc(), "-std=c++17", "-cubin", f"-arch=sm_{arch}", "-Xptxas", "-v", source,
         "-o", tmp_path / "out.cubin"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", answer.stderr)
    assert frames == [("0", "0")] * len(KERNELS)
    assert len(re.findall(r"Used \d+ registers", answer.stderr)) == len(KERNELS)
    assert "lmem" not in answer.stderr


@pytest.mark.parametrize("capability", [(8, 7), (9, 0)], ids=["orin", "hopper"])
def test_nvrtc_compiles_all_kernels(capability):
    try:
        nvrtc = Nvrtc()
    except MissingDependencyError as error:
        pytest.skip(f"{error} (group test-trt)")
    cubin = nvrtc.compile(image_source(), capability=capability)
    assert {name.decode() for name in re.findall(rb"\.text\.cclseg_(\w+)", cubin)} == KERNELS
