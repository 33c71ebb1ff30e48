"""The TensorRT plugin built for tests, and the programs that load it as TensorRT does."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np

NATIVE = Path(str(files("cclseg").joinpath("native")))
HERE = Path(__file__).parent

TYPES = {"float32": 0, "float16": 1, "int8": 2}  # nvinfer1::DataType
LINEAR, CHW4 = 0, 3  # nvinfer1::TensorFormat
ONNX_TYPES = {"float32": 1, "int8": 3, "float16": 10}


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def build_emulated(folder: Path, *flags: str) -> Path:
    """Compiles the plugin for the CPU: its enqueue runs the emulated kernels."""
    library = folder / "emulated_plugin.so"
    source = NATIVE / "tensorrt" / "local_correlation_plugin.cu"
    subprocess.run(
        ["g++", "-x", "c++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror",
         "-Wno-unknown-pragmas", "-fPIC", "-fvisibility=hidden", "-shared", *flags,
         source, "-o", library],
        check=True,
    )  # fmt: skip
    return library


def build_driver(folder: Path, *flags: str) -> Path:
    program = folder / "plugin_driver"
    subprocess.run(
        ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{NATIVE / 'tensorrt'}",
         *flags, HERE / "plugin_driver.cpp", "-o", program, "-ldl"],
        check=True,
    )  # fmt: skip
    return program


class RefusedError(ValueError):
    """The plugin said no; the message is its reason."""


class Driver:
    """Calls one plugin library through the driver program."""

    def __init__(self, program: Path, library: Path, folder: Path) -> None:
        self.program, self.library, self.folder = program, library, folder

    def ask(self, command: str, *arguments, **fields) -> list[list[str]]:
        """Returns the words of each printed line."""
        given = [f"{name}={value}" for name, value in fields.items()]
        answer = subprocess.run(
            [self.program, self.library, *given, command, *map(str, arguments)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if answer.returncode:
            raise RefusedError(answer.stderr)
        return [line.split() for line in answer.stdout.splitlines()]

    def correlate(self, a, b, *, out_shape, out_type, logical_shape=None, fields, samples=0):
        """Runs the plugin's enqueue; returns the result and the microseconds of each sample."""
        maps, out = self.folder / "maps.bin", self.folder / "out.bin"
        maps.write_bytes(np.ascontiguousarray(a).tobytes() + np.ascontiguousarray(b).tobytes())
        fmt = CHW4 if logical_shape else LINEAR
        lines = self.ask(
            "run", TYPES[a.dtype.name], fmt, *(logical_shape or a.shape), maps, out, samples,
            **fields,
        )  # fmt: skip
        result = np.frombuffer(out.read_bytes(), out_type).reshape(out_shape)
        return result, [float(line[0]) for line in lines]


def build_rtx_engine(plugin: Path, model: Path, folder: Path) -> dict[str, object]:
    """Builds an engine in a process of its own, which needs neither GPU nor driver.

    The wheel's parser opens ``libtensorrt_rtx.so``, and the wheel holds only ``.so.1``
    (TensorRT for RTX 1.7): a link in ``folder`` helps it.
    """
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    libraries = Path(spec.submodule_search_locations[0])
    link = folder / "libtensorrt_rtx.so"
    if not link.is_symlink():
        link.symlink_to(libraries / "libtensorrt_rtx.so.1")
    environment = os.environ | {"LD_LIBRARY_PATH": f"{folder}:{libraries}"}
    answer = subprocess.run(
        [sys.executable, HERE / "rtx_build.py", plugin, model, folder / "engine.plan"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if answer.returncode:
        raise RefusedError(answer.stderr)
    return json.loads(answer.stdout.splitlines()[-1]) | {"log": answer.stderr + answer.stdout}
