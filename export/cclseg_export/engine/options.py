"""What a build is asked for, and how the words of the command line are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cclseg.errors import InputError

if TYPE_CHECKING:
    from cclseg.engine_record import HardwareCompatibility

Target = Literal["tensorrt", "tensorrt-rtx", "openvino"]

NamedShapes = Mapping[str, tuple[int, ...]]
"""Shape of each input by its name; the name "" stands for the only input."""

_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30,
          "KB": 10**3, "MB": 10**6, "GB": 10**9}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        smallest: Smallest shapes that the engine shall take; None takes the model's size, one tile.
        usual: Shapes that it shall be fastest on; None takes the model's size, one tile.
        largest: Largest shapes that it shall take; None takes the model's size, eight tiles.
        workspace_bytes: Scratch memory that its kernels may take, None for the device's memory.
        optimization_level: How long the builder searches, 0 to 5; None for the library's default.
        timing_cache: File of measured kernel times, read and written; None for one of this
            library and device in the user's cache folder.
        plugin: Compiled operators, None to find or compile them where the model needs them.
        version_compatible: Also run in later versions of the library, at some cost in speed.
        hardware_compatibility: Which other devices it shall run on, at some cost in speed.
        dla_core: Core of the deep-learning accelerator to run on, None for the GPU.
        gpu_fallback: Run on the GPU what that accelerator cannot run.
    """

    smallest: NamedShapes = field(default_factory=dict)
    usual: NamedShapes = field(default_factory=dict)
    largest: NamedShapes = field(default_factory=dict)
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    plugin: Path | None = None
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "none"
    dla_core: int | None = None
    gpu_fallback: bool = False


def parse_bytes(text: str) -> int:
    """Reads an amount of memory such as "2GiB", "512 MiB" or "1500000".

    Raises:
        InputError: Not an amount.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text, re.ASCII)
    if found is None or found.group(2).upper() not in _UNITS:
        raise InputError(f"got '{text}'; expected an amount of memory such as 2GiB or 512MiB")
    amount = round(float(found.group(1)) * _UNITS[found.group(2).upper()])
    if amount < 1:
        raise InputError(f"got '{text}'; expected at least one byte")
    return amount


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Reads "images:4x3x512x512" or "4x3x512x512" into the input's name ("" for none) and shape.

    Raises:
        InputError: Not a shape.
    """
    name, _, sizes = text.rpartition(":")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes, re.ASCII):
        raise InputError(
            f"got '{text}'; expected a shape such as 4x3x512x512 or images:4x3x512x512"
        )
    return name, tuple(int(size) for size in sizes.split("x"))
