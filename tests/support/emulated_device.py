"""The emulated driver, compiled once for all tests; loaded by processes of their own.

A process that has loaded a driver keeps it, so the process of the tests never loads this one.
"""

import subprocess
from importlib.resources import files
from pathlib import Path

from native_libraries import built_once

HERE = Path(__file__).parent


def driver_folder():
    """Returns the folder of its ``libcuda.so.1``, for LD_LIBRARY_PATH."""
    return built_once("emulated-device", _build).parent


def _build(folder):
    library = folder / "libcuda.so.1"
    sources = files("cclseg").joinpath("native/cuda")
    subprocess.run(
        ["g++", "-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror",
         "-Wno-unknown-pragmas", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1", f"-I{sources}",
         HERE / "emulated_driver.cpp", str(sources / "emulate_image.cpp"), "-o", library, "-ldl"],
        check=True,
    )  # fmt: skip
    return library
