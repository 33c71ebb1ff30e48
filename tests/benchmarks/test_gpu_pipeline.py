"""The script for a GPU runs from end to end without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cuda_emulation
import pytest

from cclseg.errors import MissingDependencyError
from cclseg.gpu.nvrtc import Nvrtc

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_pipeline.py"


@pytest.mark.slow
def test_it_checks_all_kernels_and_the_pipeline_under_emulation(tmp_path):
    if not cuda_emulation.has_compiler():
        pytest.skip("no g++ to compile the emulated driver with")
    try:
        Nvrtc()
    except MissingDependencyError as error:
        pytest.skip(f"{error} (group test-trt)")
    result = tmp_path / "result.json"
    answer = subprocess.run(
        [sys.executable, SCRIPT, "--emulate", "--cases", "2", "-o", result],
        env=os.environ | {"CCLSEG_KERNEL_CACHE": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    content = json.loads(result.read_text())
    assert content["gpu"] == "emulated"
    assert content["largest_confidence_error"] < 1e-6
    assert "kernels" not in content  # nothing is timed
