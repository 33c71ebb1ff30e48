"""What tests compile: built by one worker for all of them, and kept until a source changes."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest

from cclseg import ops_build
from cclseg.errors import BackendError
from cclseg.native_build_tensorrt import find_nvcc

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".pytest_cache" / "cclseg-native"
ARM_COMPILER, ARM_EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


def built_once(name, build):
    """Returns what ``build(folder)`` returned, the path of a file that it wrote there."""
    folder = FOLDER / f"{name}-{_digest_of_sources()}"
    built = folder / "built.txt"
    with _one_worker_at_a_time(name):
        if not built.exists():
            folder.mkdir(exist_ok=True)
            built.write_text(str(build(folder)))
    return Path(built.read_text())


@cache
def native_library(host):
    """Returns the path of the library for a host, and skips where no compiler is."""
    with _one_worker_at_a_time("cpu"):
        if found := ops_build.find_cpu_library(host, FOLDER):
            return found
        try:
            ops_build.find_compiler()
        except BackendError as error:
            pytest.skip(str(error))
        return ops_build.build_cpu(FOLDER, hosts=[host])[host]


def sanitized_program(driver):
    """Returns the command of a program that stops at a wrong access or undefined arithmetic."""
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    try:
        return [_program("sanitized", driver, ops_build.find_compiler(), flags)]
    except BackendError as error:
        pytest.skip(f"no compiler with sanitizers: {error}")


def arm_program(driver):
    """Returns the command of a program for 64-bit ARM in an emulator."""
    compiler, emulator = shutil.which(ARM_COMPILER), shutil.which(ARM_EMULATOR)
    if compiler is None or emulator is None:
        pytest.skip(f"needs {ARM_COMPILER} and {ARM_EMULATOR}: "
                    "apt install g++-aarch64-linux-gnu qemu-user")  # fmt: skip
    return [emulator, "-cpu", "max", _program("arm", driver, compiler, ("-static",))]


def _program(name, driver, compiler, flags):
    """Compiles the kernels and a driver around them."""

    def build(folder):
        program = folder / "driver"
        include = ("-I", str(ops_build.SOURCES))
        ops_build.compile_kernels(compiler, driver, program, (*flags, *include))
        return program

    return built_once(f"{name}-{driver.stem}", build)


@cache
def native_plugin():
    """Returns the plugin as the command line compiles it with nvcc, for one architecture."""
    skip_without_nvcc()
    return built_once("compiled-plugin", _run_the_verb)


def skip_without_nvcc():
    try:
        find_nvcc()
    except BackendError as error:
        pytest.skip(str(error))


def _run_the_verb(folder):
    verb = ["ops", "build", "--tensorrt", "--arch", "87", "-o", str(folder)]
    answer = subprocess.run(
        [sys.executable, "-m", "cclseg", *verb], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return Path(answer.stdout.splitlines()[-1])


@contextmanager
def _one_worker_at_a_time(name):
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def _digest_of_sources():
    """Digests what is compiled and the modules that know the flags."""
    package = Path(str(files("cclseg")))
    native = [path for path in sorted((package / "native").rglob("*")) if path.is_file()]
    builders = [package / "ops_build.py", package / "native_build_tensorrt.py"]
    digest = hashlib.sha256()
    for path in (*native, *builders, *sorted(HERE.glob("*.cpp")), *sorted(HERE.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
