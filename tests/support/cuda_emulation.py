"""The CUDA kernels run on the CPU: every block, thread, barrier and byte of shared memory."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from cclseg.correlation_cuda import Correlation, plan_launch

TYPES = {"float32": 0, "float16": 1, "int8": 2}


class EmulatedLaunch(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int) for name in ("radius", "x", "y", "z", "blocks", "shared_bytes")
    ]


def build(folder: Path, *flags: str) -> Path:
    """Compiles the kernels for the CPU."""
    source = files("cclseg").joinpath("native/cuda/emulate.cpp")
    library = folder / "emulated_correlation.so"
    subprocess.run(
        ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas",
         "-fPIC", "-shared", *flags, "-o", library, str(source)],
        check=True,
    )  # fmt: skip
    return library


def run_sanitized(which: str, folder: Path) -> str:
    """Runs emulated kernels under AddressSanitizer and UBSan; returns what the program says."""
    found = [_compiler_file(name) for name in ("libasan.so", "libubsan.so")]
    if not all(Path(path).is_absolute() for path in found):
        pytest.skip("the compiler brings no sanitizer libraries")
    environment = os.environ | {
        "LD_PRELOAD": ":".join(found),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
    }
    script = Path(__file__).with_name("sanitized_emulation.py")
    answer = subprocess.run(
        [sys.executable, script, which, folder],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def _compiler_file(name: str) -> str:
    asked = ["g++", f"-print-file-name={name}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def has_compiler() -> bool:
    return shutil.which("g++") is not None


def aligned_copy(array):
    """A dense copy at an address that is a multiple of 16, as every GPU allocation is."""
    memory = np.empty(array.nbytes + 16, np.uint8)
    start = -memory.ctypes.data % 16
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def packs_of_four(maps):
    """(N, C, H, W) int8 as (N, ceil(C / 4), H, W, 4), the padding filled with rubbish."""
    n, c, h, w = maps.shape
    padded = np.full((n, -(-c // 4) * 4, h, w), 99, np.int8)
    padded[:, :c] = maps
    return np.ascontiguousarray(padded.reshape(n, -1, 4, h, w).transpose(0, 1, 3, 4, 2))


def launch(library, what: Correlation, pointers, *, multiprocessors=2, backwards=False):
    """Runs the launch that is planned for three addresses."""
    plan = plan_launch(what, multiprocessors=multiprocessors, pointers=pointers)
    status = library.cclseg_emulate(
        TYPES[what.map_type],
        ctypes.byref(EmulatedLaunch(plan.radius, *plan.threads, plan.grid.x, plan.shared_bytes)),
        ctypes.create_string_buffer(plan.params, len(plan.params)),
        *(ctypes.c_void_p(pointer) for pointer in pointers),
        int(backwards),
    )
    assert status == 0, "threads of a block did not meet at the same barriers"


def correlate(library, what: Correlation, a, b, *, multiprocessors=2):
    """Runs one planned launch twice, the threads taking turns forwards and backwards."""
    a, b = aligned_copy(a), aligned_copy(b)
    results = []
    for backwards in (False, True):
        out = aligned_copy(np.full(what.out_shape, 77, what.out_type))
        pointers = tuple(array.ctypes.data for array in (a, b, out))
        launch(library, what, pointers, multiprocessors=multiprocessors, backwards=backwards)
        results.append(out)
    np.testing.assert_array_equal(results[0].view(np.uint8), results[1].view(np.uint8))
    return results[0]
