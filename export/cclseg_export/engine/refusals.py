"""What a refused build means, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cclseg.errors import BackendError, CclsegError, InputError, MissingDependencyError, SinkError

if TYPE_CHECKING:
    from pathlib import Path

    from .job import BuildRefusedError, Job, Kind

_LIBRARY_NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
_ADVICE: dict[Kind, str] = {
    "plugin": "Compile it again: cclseg ops build --tensorrt",
    "unsupported": "Export the model in a form without them (another opset may expand them)",
    "workspace": "Allow more with --workspace",
    "memory": "End other programs, build with a smaller --workspace, fewer tiles (--max) or "
    "--optimization-level 0, or add swap space",
    "refused": "Keep the layer that it names in floating point (cclseg export --keep-float), or "
    "build with another --optimization-level",
}
_OF_QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")


def explained(error: BuildRefusedError, job: Job, model: Path) -> CclsegError:
    """Turns what the building process said into an error with advice.

    Args:
        error: Why the build failed.
        job: What was built.
        model: The model, as the user named it.
    """
    library, said = _LIBRARY_NAMES[job.library], error.detail
    if error.kind == "missing":
        return MissingDependencyError(said)
    if error.kind == "option":
        return InputError(said)
    if error.kind == "disk":
        return SinkError(
            f"the engine cannot be written: {said}; free space or choose another place"
        )
    return BackendError(f"{_found(error, job, library, model)} {said}. {_advice(error, job)}")


def _found(error: BuildRefusedError, job: Job, library: str, model: Path) -> str:
    return {
        "plugin": f"{library} does not load the plugin {job.plugin}:",
        "unsupported": f"{library} has no operator for these of {model}:",
        "parse": f"{library} cannot read {model}:",
        "workspace": f"{library} found no kernel for {model} within the scratch memory:",
        "memory": f"memory ran out while {library} was building {model}:",
    }.get(error.kind, f"{library} cannot build {model}:")


def _advice(error: BuildRefusedError, job: Job) -> str:
    if error.kind == "parse":
        return _advice_on_reading(error.detail, job)
    if error.kind == "workspace" and job.workspace_bytes:
        return f"Allow more than {job.workspace_bytes / 2**20:g} MiB with --workspace"
    return _ADVICE.get(error.kind, _ADVICE["refused"])


def _advice_on_reading(said: str, job: Job) -> str:
    if any(name in said for name in _OF_QUANTIZATION):
        return (
            "An INT8 file for CPUs is quantised in another way; export one for this library: "
            f"cclseg export CHECKPOINT -o DIR --target {job.library} --calib DATA"
        )
    if "Plugin not found" in said:
        return (
            "Its plugin is not known to the library; compile it: cclseg ops build --tensorrt, or "
            "name it with --plugin"
        )
    return "Copy or export the model again"
