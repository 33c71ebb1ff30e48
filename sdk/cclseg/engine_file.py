"""Whether an engine fits this machine, found out before any library sees a byte of it.

An engine runs on one kind of device with one version of one library. That library takes its word
for it: what does not fit is refused late and in riddles, or is run and crashes. So ``cclseg build``
writes down what it built for, and all of that is compared first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .cuda_devices import read_cuda
from .engine_record import rebuild_command
from .errors import EngineMismatchError
from .files import file_sha256
from .native_build_tensorrt import find_tensorrt_library
from .ops_build import native_folder
from .tensorrt_library import import_library

if TYPE_CHECKING:
    from .cuda_devices import CudaDevice
    from .engine_record import EngineRecord

_AMPERE = 8


@dataclass(frozen=True, slots=True)
class Here:
    """What this machine has, of what an engine depends on.

    Attributes:
        library_version: Version of the library that shall run the engine.
        devices: The NVIDIA devices; the first one is used.
        plugin: The compiled operators, None where there are none.
    """

    library_version: str
    devices: tuple[CudaDevice, ...]
    plugin: Path | None


def read_here(record: EngineRecord) -> Here:
    """Looks at what an engine needs on this machine.

    Raises:
        MissingDependencyError: The library that built the engine is not installed.
    """
    driver = read_cuda()
    return Here(
        library_version=import_library(record.library).__version__,
        devices=driver.devices if driver else (),
        plugin=find_tensorrt_library(native_folder()) if record.plugin else None,
    )


def mismatches(engine: Path, record: EngineRecord, here: Here) -> list[str]:
    """Says in what an engine, by its sidecar, does not fit this machine; empty where it fits."""
    return [
        *_version_reasons(record, here.library_version),
        *_device_reasons(record, here.devices),
        *_plugin_reasons(record, here.plugin),
        *_source_reasons(engine, record),
    ]


def load_plan(engine: Path, record: EngineRecord, here: Here) -> bytes:
    """Reads an engine and checks that it is whole, unaltered, and fits this machine.

    Args:
        engine: The engine.
        record: What its sidecar says.
        here: What this machine has.

    Returns:
        The bytes that were checked: give these to the library, not the file.

    Raises:
        EngineMismatchError: Says every reason at once, and the command that builds it here.
    """
    reasons = mismatches(engine, record, here)
    try:
        plan = engine.read_bytes()
    except OSError as error:
        raise EngineMismatchError(f"cannot read {engine}: {error.strerror}") from error
    reasons += damage(plan, record)
    if reasons:
        advice = f"Build it here: {rebuild_command(engine, record)}"
        if not here.devices:
            advice = "Run it where a device is, or load the ONNX file that it was built from"
        raise EngineMismatchError(f"{engine} does not fit: {'; '.join(reasons)}. {advice}")
    return plan


def damage(plan: bytes, record: EngineRecord) -> list[str]:
    """Says in what the bytes of an engine are not those that were built; empty where they are."""
    if len(plan) != record.engine_bytes:
        return [
            f"it has {len(plan)} bytes and was written with {record.engine_bytes}, so it is cut "
            "off or another file"
        ]
    if hashlib.sha256(plan).hexdigest() != record.engine_sha256:
        return ["its bytes are not those that were built (SHA-256 differs)"]
    return []


def _version_reasons(record: EngineRecord, version: str) -> list[str]:
    built, here = _numbers(record.library_version), _numbers(version)
    later = record.version_compatible and built[:1] == here[:1] and built <= here
    if built[:3] == here[:3] or later:
        return []
    return [f"it was built by {record.library} {record.library_version}, here is {version}"]


def _device_reasons(record: EngineRecord, devices: Sequence[CudaDevice]) -> list[str]:
    if not devices:
        return ["there is no NVIDIA device or driver here (see: cclseg doctor)"]
    here = devices[0].capability
    if record.capability in (None, here):
        return []
    compatible = record.hardware_compatibility == "ampere-plus"
    if compatible and here[0] >= _AMPERE:
        return []
    names = f"{_dotted(here)} ({devices[0].name})"
    return [
        f"it was built for compute capability {_dotted(record.capability or here)} "
        f"({record.device}), this device has {names}"
    ]


def _plugin_reasons(record: EngineRecord, plugin: Path | None) -> list[str]:
    if record.plugin is None:
        return []
    if plugin is None:
        return [
            f"it calls the plugin {record.plugin.name}, which is not compiled here (cclseg ops "
            "build --tensorrt)"
        ]
    if file_sha256(plugin) != record.plugin.sha256:
        return [f"it calls another plugin than {plugin}"]
    return []


def _source_reasons(engine: Path, record: EngineRecord) -> list[str]:
    """Compares with the ONNX file where it stands beside the engine, as it does after a build."""
    source = engine.with_name(Path(record.source).name)
    if source.is_file() and file_sha256(source) != record.source_sha256:
        return [f"{source.name} beside it is another model than the one it was built from"]
    return []


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(int(part) for part in parts if part.isdigit())


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
