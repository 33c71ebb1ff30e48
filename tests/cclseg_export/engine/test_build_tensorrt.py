"""``--target tensorrt`` on an emulated device, with TensorRT for RTX under TensorRT's name.

The interface is the same, so the whole road is walked: the device is asked, its times are kept in
the cache, flags reach the builder, and the sidecar names the device. What the builder makes of
device and flags is for a real one to show.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

import pytest
from cuda_emulation import has_compiler
from emulated_device import driver_folder
from rtx import needs_rtx

from cclseg.engine_record import read_record

pytestmark = [
    needs_rtx,
    pytest.mark.skipif(not has_compiler(), reason="no g++ to compile the emulated driver with"),
]

STAND_IN = 'from tensorrt_rtx_bindings import *\n\n__version__ = "10.3.0"\n'

WITH_ACCELERATORS = (
    STAND_IN
    + """
_Builder = Builder


class Builder(_Builder):
    num_DLA_cores = 2
"""
)
"""A device with two accelerators, of which the library says that they can run nothing."""


@pytest.fixture
def build(tmp_path, network):
    """Runs the verb; returns its exit code, standard output and error."""
    stand_in = tmp_path / "stand_in"
    stand_in.mkdir()
    (stand_in / "tensorrt.py").write_text(STAND_IN)
    libraries = Path(find_spec("tensorrt_rtx_libs").submodule_search_locations[0])
    (stand_in / "libtensorrt_rtx.so").symlink_to(libraries / "libtensorrt_rtx.so.1")
    paths = (driver_folder(), stand_in, libraries)
    environment = os.environ | {
        "PYTHONPATH": str(stand_in),
        "LD_LIBRARY_PATH": ":".join(map(str, paths)),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    def run(*words):
        command = [sys.executable, "-m", "cclseg", "build", network, "-o", tmp_path / "m.engine"]
        done = subprocess.run(
            [*command, *words], env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_the_sidecar_names_the_device(build, tmp_path):
    code, out, err = build("--json", "-")
    assert code == 0, err
    assert json.loads(out)["attempts"] == 1
    record = read_record(tmp_path / "m.engine")
    assert (record.library, record.library_version) == ("tensorrt", "10.3.0")
    assert (record.device, record.capability) == ("Orin", (8, 7))
    assert "CUDA 13.0" in record.driver


def test_times_are_kept_for_the_device_in_the_cache(build, tmp_path):
    assert build()[0] == 0
    (times,) = (tmp_path / "cache" / "cclseg" / "tensorrt").iterdir()
    assert times.name == "sm87.timing"
    assert times.stat().st_size > 0


def test_compatibility_reaches_the_builder(build, tmp_path):
    code, _, err = build("--hardware-compatible", "ampere-plus")
    assert code == 0
    assert "setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX" in err
    assert read_record(tmp_path / "m.engine").hardware_compatibility == "ampere-plus"
    code, _, err = build("--version-compatible")
    assert code == 1
    assert "libnvinfer_lean" in err


def test_a_device_without_accelerators_says_so(build, tmp_path):
    code, _, err = build("--dla", "0", "--gpu-fallback")
    assert code == 1
    assert "this device has 0 deep-learning accelerators; core 0 is none" in err
    assert not (tmp_path / "m.engine").exists()


def test_what_an_accelerator_cannot_run_is_named_before_the_build(build, tmp_path):
    (tmp_path / "stand_in" / "tensorrt.py").write_text(WITH_ACCELERATORS)
    code, _, err = build("--dla", "1")
    assert code == 1
    assert "the accelerator cannot run" in err
    assert "--gpu-fallback" in err
    assert not (tmp_path / "m.engine").exists()
    assert "core 2 is none" in build("--dla", "2")[2]


@pytest.mark.skipif(find_library("cuda") is not None, reason="this machine has an NVIDIA driver")
def test_without_a_device_nothing_is_built(network, tmp_path):
    (tmp_path / "tensorrt.py").write_text(STAND_IN)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-m", "cclseg", "build", network]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no NVIDIA device or driver here" in done.stderr
