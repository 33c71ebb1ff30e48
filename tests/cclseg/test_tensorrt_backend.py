"""The TensorRT backend: on an emulated device, and refused where there is none."""

from __future__ import annotations

import ctypes.util

import emulated_process
import pytest
from engines import write_engine

from cclseg.backends.choose import load_backend, open_backend
from cclseg.built_engines import record_built
from cclseg.errors import EngineMismatchError, MissingDependencyError
from cclseg.tensorrt_library import find_module

EMULATION = emulated_process.HERE / "emulated_tensorrt"


def test_the_backend_keeps_its_contract_on_an_emulated_device():
    suite = EMULATION / "suite.py"
    emulated_process.run_suite(suite, folders=(EMULATION,))


@pytest.fixture
def trusted_engine(tmp_path, monkeypatch):
    """An engine that this device takes for its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def write(**record):
        engine = write_engine(tmp_path, **record)
        record_built(engine)
        return engine

    return write


def test_without_a_device_an_engine_is_refused(trusted_engine):
    if find_module("tensorrt-rtx") is None:
        pytest.skip("TensorRT for RTX is not installed (group test-trt)")
    if ctypes.util.find_library("cuda"):
        pytest.skip("this machine has an NVIDIA driver")
    engine = trusted_engine(library="tensorrt-rtx", capability=None)
    with pytest.raises(EngineMismatchError, match="no NVIDIA device or driver here"):
        open_backend(engine)


def test_the_library_of_the_sidecar_is_asked_for(trusted_engine):
    if find_module("tensorrt-rtx") is None or find_module("tensorrt") is not None:
        pytest.skip("needs TensorRT for RTX without TensorRT")
    with pytest.raises(MissingDependencyError, match=r"engines of 'tensorrt' .*cclseg\[trt\]"):
        open_backend(trusted_engine())


def test_engines_ask_for_a_library_where_there_is_none(trusted_engine):
    if find_module("tensorrt-rtx") is not None or find_module("tensorrt") is not None:
        pytest.skip("a library for engines is installed")
    with pytest.raises(MissingDependencyError, match=r"cclseg\[trt\]"):
        load_backend("tensorrt")
