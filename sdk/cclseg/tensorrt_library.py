"""Finds NVIDIA's TensorRT, or TensorRT for RTX, by the names under which they are installed.

Both have the same interface. A Jetson has ``tensorrt`` from apt; a package index may bring the
bindings without the metapackage that would give them their usual name.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Literal

from .errors import MissingDependencyError

Library = Literal["tensorrt", "tensorrt-rtx"]
"""A library that builds and runs engines; the engines of one are none of the other's."""

_MODULES: dict[Library, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_EXTRAS: dict[Library, str] = {"tensorrt": "trt", "tensorrt-rtx": "rtx"}


def find_module(library: Library) -> str | None:
    """Returns the import name of a library, None where it is not installed."""
    return next((name for name in _MODULES[library] if importlib.util.find_spec(name)), None)


def import_library(library: Library) -> ModuleType:
    """Imports a library.

    Raises:
        MissingDependencyError: It is not installed, or it cannot be loaded.
    """
    name = find_module(library)
    if name is None:
        raise MissingDependencyError(missing(library))
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # a native library of it is missing
        raise MissingDependencyError(
            f"'{name}' is installed and cannot be loaded: {error}; install its native libraries, "
            "or install it again"
        ) from error


def missing(library: Library) -> str:
    """Says that a library is not installed, and how it is."""
    here = f'run: pip install "cclseg[{_EXTRAS[library]}]"'
    if library == "tensorrt":
        here += (
            " (on a Jetson: apt install python3-libnvinfer, in an environment made with "
            "--system-site-packages)"
        )
    return f"engines of '{library}' need that library, which is not installed; {here}"
