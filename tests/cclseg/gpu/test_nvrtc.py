"""Compiled kernels are kept in the user's cache folder, and never taken from a damaged entry."""

from __future__ import annotations

import os

import pytest

from cclseg.errors import MissingDependencyError
from cclseg.gpu import nvrtc as module
from cclseg.gpu.nvrtc import Nvrtc

SOURCE = 'extern "C" __global__ void set(int* out) { out[threadIdx.x] = VALUE; }'


@pytest.fixture
def compiler(monkeypatch):
    """A real compiler that counts what it compiles."""
    try:
        nvrtc = Nvrtc()
    except MissingDependencyError as error:
        pytest.skip(f"{error} (group test-trt)")
    compiled, compile_ = [], nvrtc.compile

    def counting(source, **options):
        compiled.append(options)
        return compile_(source, **options)

    monkeypatch.setattr(nvrtc, "compile", counting)
    nvrtc.compiled = compiled
    return nvrtc


def kernel(compiler, folder, *, value="1", capability=(8, 7), source=SOURCE):
    return compiler.compile_once(
        source, capability=capability, definitions={"VALUE": value}, folder=folder
    )


def test_the_second_time_it_is_read(compiler, tmp_path):
    folder = tmp_path / "new" / "cache"
    first = kernel(compiler, folder)
    assert first.startswith(b"\x7fELF")
    assert kernel(compiler, folder) == first
    assert len(compiler.compiled) == 1
    assert len(list(folder.iterdir())) == 1  # nothing half-written is left


@pytest.mark.parametrize(
    "change",
    [{"value": "2"}, {"capability": (9, 0)}, {"source": SOURCE + "\n"}],
    ids=["macro", "device", "source"],
)
def test_another_question_has_another_entry(compiler, tmp_path, change):
    kernel(compiler, tmp_path)
    kernel(compiler, tmp_path, **change)
    assert len(compiler.compiled) == len(list(tmp_path.iterdir())) == 2


def test_another_compiler_has_another_entry(compiler, tmp_path, monkeypatch):
    kernel(compiler, tmp_path)
    monkeypatch.setattr(Nvrtc, "version", (99, 1))
    kernel(compiler, tmp_path)
    assert len(compiler.compiled) == 2


@pytest.mark.parametrize("harm", [lambda b: b[:100], lambda b: b[:-1] + b"!", lambda b: b""])
def test_a_damaged_entry_is_rebuilt(compiler, tmp_path, harm):
    first = kernel(compiler, tmp_path)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(harm(whole))
    assert kernel(compiler, tmp_path) == first
    assert entry.read_bytes() == whole
    assert len(compiler.compiled) == 2


def test_a_folder_that_cannot_be_written_is_a_warning(compiler, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    assert kernel(compiler, tmp_path / "file").startswith(b"\x7fELF")
    assert "compiled kernels are not kept" in caplog.text


def test_the_folder_is_the_user_s_or_the_one_that_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv(module.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert module.cache_folder() == tmp_path / "cclseg" / "kernels"
    monkeypatch.setenv(module.CACHE_VARIABLE, os.fspath(tmp_path / "own"))
    assert module.cache_folder() == tmp_path / "own"
