"""What the building process is told, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cclseg.engine_record import HardwareCompatibility, Shapes
    from cclseg.tensorrt_library import Library

Kind = Literal[
    "missing",  # the library cannot be loaded
    "plugin",  # the compiled operators cannot be loaded
    "unsupported",  # operators that the library does not have
    "parse",  # the file is refused
    "option",  # an option is not for this library or device
    "workspace",  # a kernel needs more scratch memory than it may take
    "memory",  # the machine is out of memory
    "refused",  # the build failed otherwise
    "disk",  # the engine cannot be written
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One build, as the building process gets it. Paths are texts, so that it is plain JSON.

    Attributes:
        library: What builds.
        model: The ONNX file.
        operators: Operators of its main graph, those of other domains left out.
        engine: Where the engine is written.
        shapes: Smallest, usual and largest shape of each input.
        plugin: Compiled operators to load.
        timing_cache: File of measured kernel times to start from; need not exist.
        timing_cache_out: Where the times are written after the build.
        workspace_bytes: See :class:`~cclseg_export.engine.options.BuildOptions`.
        tactic_bytes: Device memory that kernels may take while they are timed.
        optimization_level: As in the options.
        version_compatible: As in the options.
        hardware_compatibility: As in the options.
        dla_core: As in the options.
        gpu_fallback: As in the options.
    """

    library: Library
    model: str
    operators: tuple[str, ...]
    engine: str
    shapes: Mapping[str, Shapes]
    plugin: str | None = None
    timing_cache: str | None = None
    timing_cache_out: str | None = None
    workspace_bytes: int | None = None
    tactic_bytes: int | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "none"
    dla_core: int | None = None
    gpu_fallback: bool = False

    def to_json(self) -> str:
        """Returns the job as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Reads what :meth:`to_json` gave."""
        return cls(**json.loads(text))


class BuildRefusedError(Exception):
    """A build that failed for a reason that the user can do something about.

    Attributes:
        kind: What the reason has to do with.
        detail: What the library said of it, or the names that it is about.
    """

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
