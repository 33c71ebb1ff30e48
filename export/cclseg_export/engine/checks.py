"""What is looked at before a build: the machine, the options, the disk, the plugin, old times."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cclseg.cuda_devices import CudaDevice, CudaDriver, read_cuda
from cclseg.errors import BackendError, InputError, MissingDependencyError, SinkError
from cclseg.files import make_folder
from cclseg.native_build_tensorrt import build_tensorrt, find_nvcc, find_tensorrt_library
from cclseg.ops_build import OPERATOR, native_folder
from cclseg.tensorrt_library import Library, find_module, missing

if TYPE_CHECKING:
    from cclseg.onnx_file import OnnxFile

    from .options import BuildOptions

_log = logging.getLogger(__name__)


def check_machine(library: Library) -> CudaDriver | None:
    """Asks for what the library needs; returns the driver, None where none is and none is needed.

    Raises:
        MissingDependencyError: The library is not installed.
        BackendError: It needs a device, and there is none.
    """
    if find_module(library) is None:
        others: tuple[Library, ...] = ("tensorrt", "tensorrt-rtx")
        here = [other for other in others if find_module(other)]
        hint = f"; here is --target {here[0]}" if here else ""
        raise MissingDependencyError(missing(library) + hint)
    driver = read_cuda()
    if library == "tensorrt" and (driver is None or not driver.devices):
        raise BackendError(
            "TensorRT builds an engine on the device that runs it, and there is no NVIDIA device "
            "or driver here (see: cclseg doctor); build there, or use --target tensorrt-rtx"
        )
    return driver


def check_options(library: Library, options: BuildOptions) -> None:
    """Refuses what TensorRT for RTX does not have, which it would ignore or meet at the end.

    Raises:
        InputError: An option is not for this library.
    """
    if library == "tensorrt":
        return
    if options.hardware_compatibility != "none":
        raise InputError(
            "got hardware_compatibility for TensorRT for RTX; leave it out: its engines run on "
            "every device that it supports"
        )
    if options.version_compatible or options.dla_core is not None:
        raise InputError(
            "version-compatible engines and deep-learning accelerators are for TensorRT alone; "
            "leave these options out, or use --target tensorrt"
        )


def check_room(engine: Path, model: Path) -> None:
    """Refuses a disk that cannot hold the engine, before the build and not after it.

    Raises:
        SinkError: The folder is not writable, or has too little room.
    """
    make_folder(engine.parent)
    free, needed = shutil.disk_usage(engine.parent).free, model.stat().st_size
    if free < needed:
        raise SinkError(
            f"{engine.parent} has {free / 1e6:.1f} MB free; an engine of {model.name} needs about "
            f"{needed / 1e6:.1f} MB; free space or choose another place"
        )


def find_plugin(content: OnnxFile, options: BuildOptions) -> Path | None:
    """Returns the compiled correlation for a network that holds it; compiles it where it can.

    Raises:
        InputError: The plugin that the options name is not there.
        BackendError: The network needs one, and there is none and no compiler for it.
    """
    if options.plugin is not None:
        if not options.plugin.is_file():
            raise InputError(f"there is no plugin {options.plugin}; check the path")
        return options.plugin
    if OPERATOR not in content.op_counts:
        return None
    if found := find_tensorrt_library(native_folder()):
        return found
    try:
        find_nvcc()
    except BackendError as error:
        raise BackendError(
            f"the network holds {OPERATOR}, and its plugin is not compiled: {error}; or name a "
            "compiled one with --plugin"
        ) from error
    _log.warning("compiling the plugin of %s; this takes a minute or more", OPERATOR)
    return build_tensorrt(native_folder())


def timing_cache(options: BuildOptions, library: Library, device: CudaDevice | None) -> Path | None:
    """Returns the file of measured times; TensorRT for RTX measures nothing."""
    if options.timing_cache is not None:
        return options.timing_cache
    if library != "tensorrt" or device is None:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"sm{device.capability[0]}{device.capability[1]}.timing"
    return make_folder(cache / "cclseg" / "tensorrt") / name
