"""What is written beside a compiled engine: the sidecar ``<engine>.json``."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from .built_engines import engine_sidecar
from .engine_header import foreign_content
from .errors import EngineMismatchError, SpecError
from .files import write_json
from .spec import ModelSpec
from .tensorrt_library import Library

HardwareCompatibility = Literal["none", "ampere-plus", "same-compute-capability"]
"""Which other devices an engine runs on; "none" is the kind it was built on alone."""

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Smallest, usual and largest shape of an input."""

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Plugin:
    """A library of operators that an engine calls."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """All that is known of an engine without asking the library that built it.

    Attributes:
        library: What built it and runs it.
        library_version: The library's version ("10.3.0").
        engine_bytes: Size of the engine.
        engine_sha256: Hash of the engine.
        source: Name of the ONNX file that it was built from.
        source_sha256: Hash of that file.
        precision: Numeric form of the weights ("int8").
        capability: Compute capability of the device that it was built for, None for any device
            that the library supports.
        device: Name of the device that it was built on, empty where there was none.
        driver: Version of the driver then, empty where there was none.
        hardware_compatibility: Which other devices it runs on.
        version_compatible: Whether later versions of the library run it.
        plugin: The library of operators that it calls, None for none.
        dla_core: Core of the deep-learning accelerator that it runs on, None for the GPU.
        workspace_bytes: Scratch memory that its kernels may take, None for the device's memory.
        shapes: Smallest, usual and largest shape of each input.
        spec: What the network says of itself, None for one that says nothing.
    """

    library: Library
    library_version: str
    engine_bytes: int
    engine_sha256: str
    source: str
    source_sha256: str
    precision: str
    capability: tuple[int, int] | None = None
    device: str = ""
    driver: str = ""
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False
    plugin: Plugin | None = None
    dla_core: int | None = None
    workspace_bytes: int | None = None
    shapes: Mapping[str, Shapes] = field(default_factory=dict)
    spec: ModelSpec | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as plain JSON types."""
        values: dict[str, Any] = {
            entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)
        }
        values["plugin"] = self.plugin and dataclasses.asdict(self.plugin)
        values["shapes"] = dict(self.shapes)
        values["spec"] = self.spec and json.loads(self.spec.to_json())
        return {"schema": _SCHEMA, **values}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> EngineRecord:
        """Reads what :meth:`to_dict` gave. Unknown keys of later versions are ignored.

        Raises:
            ValueError: A key is missing or its value has the wrong form; says which.
        """
        for key, kinds in _KINDS.items():
            if not isinstance(content.get(key), kinds):
                raise ValueError(f"'{key}' is {content.get(key)!r}")
        if content["library"] not in get_args(Library):
            raise ValueError(f"'library' is {content['library']!r}")
        if content["hardware_compatibility"] not in get_args(HardwareCompatibility):
            raise ValueError(f"'hardware_compatibility' is {content['hardware_compatibility']!r}")
        known = {entry.name for entry in dataclasses.fields(cls)}
        values = {key: value for key, value in content.items() if key in known}
        try:
            values["capability"] = content["capability"] and _pair(content["capability"])
            values["plugin"] = content["plugin"] and Plugin(**content["plugin"])
            values["shapes"] = {name: _shapes(s) for name, s in content["shapes"].items()}
            values["spec"] = content["spec"] and ModelSpec.from_json(json.dumps(content["spec"]))
        except (TypeError, SpecError) as error:
            raise ValueError(str(error)) from error
        return cls(**values)


_KINDS: dict[str, tuple[type, ...]] = {
    "library": (str,), "library_version": (str,), "engine_bytes": (int,), "engine_sha256": (str,),
    "source": (str,), "source_sha256": (str,), "precision": (str,), "device": (str,),
    "driver": (str,), "hardware_compatibility": (str,), "version_compatible": (bool,),
    "capability": (list, type(None)), "plugin": (dict, type(None)), "shapes": (dict,),
    "dla_core": (int, type(None)), "workspace_bytes": (int, type(None)),
    "spec": (dict, type(None)),
}  # fmt: skip


def write_record(engine: Path, record: EngineRecord) -> Path:
    """Writes the sidecar of an engine and returns its path."""
    sidecar = engine_sidecar(engine)
    write_json(sidecar, record.to_dict())
    return sidecar


def read_record(engine: Path) -> EngineRecord:
    """Reads the sidecar of an engine.

    Raises:
        EngineMismatchError: The file is no engine of ours, or its sidecar is missing or damaged.
    """
    if found := foreign_content(engine):
        raise EngineMismatchError(f"{engine} {found}")
    sidecar = engine_sidecar(engine)
    try:
        content = json.loads(sidecar.read_bytes())
        return EngineRecord.from_dict(content if isinstance(content, dict) else {})
    except FileNotFoundError as error:
        raise EngineMismatchError(
            f"{engine} has no sidecar {sidecar.name}, so nothing says what it was built for; copy "
            f"both files together, or build it here: {rebuild_command(engine)}"
        ) from error
    except OSError as error:
        raise EngineMismatchError(
            f"cannot read {sidecar}: {error.strerror}; check its rights"
        ) from error
    except ValueError as error:  # JSON errors and texts that are not UTF-8 are such, too
        raise EngineMismatchError(
            f"{sidecar} is damaged ({error}); copy it again, or build the engine here: "
            f"{rebuild_command(engine)}"
        ) from error


def rebuild_command(engine: Path, record: EngineRecord | None = None) -> str:
    """Returns the command that builds an engine again; made here, never read from a file."""
    if record is None:
        return shlex.join(["cclseg", "build", engine.with_suffix(".onnx").name])
    words = ["cclseg", "build", Path(record.source).name, "--target", record.library]
    for name, (smallest, usual, largest) in record.shapes.items():
        for option, shape in (("min", smallest), ("opt", usual), ("max", largest)):
            words += [f"--{option}", f"{name}:{'x'.join(map(str, shape))}"]
    if record.hardware_compatibility != "none":
        words += ["--hardware-compatible", record.hardware_compatibility]
    if record.version_compatible:
        words.append("--version-compatible")
    if record.dla_core is not None:
        words += ["--dla", str(record.dla_core)]
    return shlex.join([*words, "-o", engine.name])


def _pair(values: Sequence[Any]) -> tuple[int, int]:
    major, minor = values
    return int(major), int(minor)


def _shapes(values: Sequence[Sequence[Any]]) -> Shapes:
    smallest, usual, largest = (tuple(map(int, shape)) for shape in values)
    return smallest, usual, largest
