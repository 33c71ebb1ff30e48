"""Building the native operator: with a compiler, without one, and what is found afterwards."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from native_libraries import native_library

from cclseg import ops_build
from cclseg.errors import BackendError


def run_cli(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "cclseg", "ops", "build", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_the_folder_is_the_users_choice(monkeypatch, tmp_path):
    monkeypatch.delenv("CCLSEG_NATIVE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert ops_build.native_folder() == tmp_path / "cclseg" / "native"
    monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(tmp_path / "mine"))
    assert ops_build.native_folder() == tmp_path / "mine"


def test_nothing_is_found_where_nothing_was_built(tmp_path):
    assert ops_build.find_cpu_library("onnxruntime", tmp_path) is None


def test_what_the_user_built_goes_before_what_the_package_carries(monkeypatch, tmp_path):
    built = native_library("onnxruntime")
    for name in ("package", "cache/cclseg/native"):
        (tmp_path / name).mkdir(parents=True)
        shutil.copy(built, tmp_path / name)
    monkeypatch.setattr(ops_build, "PACKAGED", tmp_path / "package")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CCLSEG_NATIVE_DIR", raising=False)
    users = ops_build.find_cpu_library("onnxruntime")
    assert users == tmp_path / "cache" / "cclseg" / "native" / built.name
    users.unlink()
    assert ops_build.find_cpu_library("onnxruntime") == tmp_path / "package" / built.name
    monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(tmp_path / "empty"))
    assert ops_build.find_cpu_library("onnxruntime") is None


def test_a_library_of_other_sources_is_not_found(monkeypatch, tmp_path):
    built = native_library("onnxruntime")
    shutil.copy(built, tmp_path)
    assert ops_build.find_cpu_library("onnxruntime", tmp_path) == tmp_path / built.name
    sources = shutil.copytree(ops_build.SOURCES, tmp_path / "cpu")
    (sources / "kernel.h").write_text("// changed\n")
    monkeypatch.setattr(ops_build, "SOURCES", sources)
    assert ops_build.find_cpu_library("onnxruntime", tmp_path) is None


def test_without_a_compiler_the_message_says_what_to_install(tmp_path):
    done = run_cli("-o", tmp_path / "out", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "apt install g++" in done.stderr
    assert "Networks run without" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_compiler_that_fails_leaves_no_library(monkeypatch, tmp_path):
    ops_build.find_compiler()
    with pytest.raises(BackendError, match="no_such_flag"):
        ops_build.build_cpu(tmp_path, hosts=["onnxruntime"], extra_flags=["-no_such_flag"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_verb_builds_where_it_is_told_and_prints_the_paths(tmp_path):
    try:
        compiler = ops_build.find_compiler()
    except BackendError as error:
        pytest.skip(str(error))
    path = f"{shutil.which('env').rsplit('/', 1)[0]}:{compiler.rsplit('/', 1)[0]}"
    done = run_cli("--cpu", "-o", tmp_path / "out", PATH=path)
    assert done.returncode == 0, done.stderr
    written = sorted(str(file) for file in (tmp_path / "out").iterdir())
    assert sorted(done.stdout.split()) == written
    assert ops_build.find_cpu_library("onnxruntime", tmp_path / "out") is not None
