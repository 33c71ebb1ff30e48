"""The build: an ONNX file in, an engine with its sidecar out."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cclseg.built_engines import record_built
from cclseg.cuda_devices import CudaDevice, read_cuda
from cclseg.engine_record import EngineRecord, Plugin, write_record
from cclseg.errors import BackendError, InputError, MissingDependencyError, SinkError, SpecError
from cclseg.files import file_sha256, make_folder, replacing
from cclseg.native_build_tensorrt import build_tensorrt, find_nvcc, find_tensorrt_library
from cclseg.onnx_file import OnnxFile, load_onnx, spec_of
from cclseg.ops_build import OPERATOR, native_folder
from cclseg.tensorrt_library import Library, find_module, missing

from .job import BuildRefusedError, Job
from .profiles import plan_profile
from .refusals import explained
from .supervise import OnProgress, Outcome, build_in_process

if TYPE_CHECKING:
    from cclseg.cuda_devices import CudaDriver
    from cclseg.spec import ModelSpec

    from .options import BuildOptions

_log = logging.getLogger(__name__)

Say = Callable[[str], None]

_ATTEMPTS = 3
_DEFAULT_LEVEL = 3
_UNKNOWN_MEMORY = 4 << 30
_PLUGIN_NAME, _PLUGIN_VERSION = "LocalCorrelation", "1"


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """A finished engine.

    Attributes:
        path: The engine.
        record: What its sidecar says.
        build_s: Seconds that the build took.
        attempts: Builds that it took; more than one where memory ran out.
        warnings: What the library warned of.
    """

    path: Path
    record: EngineRecord
    build_s: float
    attempts: int
    warnings: tuple[str, ...]


def build_engine(
    model: Path,
    engine: Path,
    library: Library,
    options: BuildOptions,
    *,
    progress: OnProgress | None = None,
) -> BuiltEngine:
    """Builds an engine of a model for this device, writes it with its sidecar, and records it.

    The builder runs in a process of its own. When memory runs out, the build is tried again with a
    quarter of the scratch memory and a shorter search, twice at most; the log says so.

    Args:
        model: The ONNX file.
        engine: Where the engine is written; its folder is made where it is missing.
        library: What builds it.
        options: How.
        progress: Called with the share that is done and what is done now.

    Raises:
        MissingDependencyError: The library is not installed.
        InputError: An option does not fit the model or the device.
        BackendError: The model is damaged, or the library refuses it; says what to do.
        SinkError: The engine cannot be written.
    """
    driver = _check_machine(library)
    _check_options(library, options)
    content, _ = load_onnx(model)
    spec = _spec_or_none(model, content)
    shapes = plan_profile(content.inputs, spec, options)
    _check_room(engine, model)
    plugin = _find_plugin(content, options)
    device = driver.devices[0] if driver and driver.devices else None
    job = Job(
        library=library,
        model=str(model),
        operators=tuple(name for name in content.op_counts if "." not in name),
        engine=str(engine),
        shapes=shapes,
        plugin=str(plugin) if plugin else None,
        workspace_bytes=options.workspace_bytes,
        optimization_level=options.optimization_level,
        version_compatible=options.version_compatible,
        hardware_compatibility=options.hardware_compatibility,
        dla_core=options.dla_core,
        gpu_fallback=options.gpu_fallback,
    )
    start_s = time.monotonic()
    cache = _timing_cache(options, library, device)
    with replacing(engine) as temporary:
        built, outcome, attempts = _built(
            replace(job, engine=str(temporary)), cache, model, progress, device
        )
        record = EngineRecord(
            library=library,
            library_version=outcome.library_version,
            engine_bytes=temporary.stat().st_size,
            engine_sha256=file_sha256(temporary),
            source=model.name,
            source_sha256=outcome.source_sha256,
            precision=spec.precision if spec else _precision(content),
            # Engines of TensorRT for RTX are finished on the device that runs them.
            capability=device.capability if device and library == "tensorrt" else None,
            device=device.name if device else "",
            driver=driver.version if driver else "",
            hardware_compatibility=options.hardware_compatibility,
            version_compatible=options.version_compatible,
            plugin=_identity(plugin, outcome),
            dla_core=options.dla_core,
            workspace_bytes=built.workspace_bytes,
            shapes=shapes,
            spec=spec,
        )
    write_record(engine, record)
    record_built(engine)
    return BuiltEngine(engine, record, time.monotonic() - start_s, attempts, outcome.warnings)


def _check_machine(library: Library) -> CudaDriver | None:
    """Asks for what the library needs before anything is read."""
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


def _check_options(library: Library, options: BuildOptions) -> None:
    """Refuses what TensorRT for RTX does not have, which it would ignore or meet at the end."""
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


def _spec_or_none(model: Path, content: OnnxFile) -> ModelSpec | None:
    try:
        return spec_of(model, content)
    except SpecError as error:
        _log.warning("%s; give the spec when the engine is loaded", error)
        return None


def _check_room(engine: Path, model: Path) -> None:
    """Refuses a disk that cannot hold the engine, before the build and not after it."""
    make_folder(engine.parent)
    free, needed = shutil.disk_usage(engine.parent).free, model.stat().st_size
    if free < needed:
        raise SinkError(
            f"{engine.parent} has {free / 1e6:.1f} MB free; an engine of {model.name} needs about "
            f"{needed / 1e6:.1f} MB; free space or choose another place"
        )


def _find_plugin(content: OnnxFile, options: BuildOptions) -> Path | None:
    """Returns the compiled correlation for a network that holds it; compiles it where it can."""
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


def _built(
    job: Job,
    cache: Path | None,
    model: Path,
    progress: OnProgress | None,
    device: CudaDevice | None,
) -> tuple[Job, Outcome, int]:
    """Builds, with less memory each time that it runs out; returns the job that succeeded."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return job, _build_once(job, cache, progress), attempt
        except BuildRefusedError as error:
            if error.kind != "memory" or attempt == _ATTEMPTS:
                raise explained(error, job, model) from error
            job = with_less_memory(job, device)
            _log.warning(
                "memory ran out; trying again with %d MiB of scratch memory and optimization "
                "level %d",
                (job.workspace_bytes or 0) >> 20,
                job.optimization_level,
            )
    raise AssertionError("unreachable")


def with_less_memory(job: Job, device: CudaDevice | None) -> Job:
    """Returns the job with a quarter of its scratch memory, and a search that is one level shorter.

    Kernels that are timed get no more than twice that memory, either.
    """
    before = job.workspace_bytes or (device.memory_bytes if device else _UNKNOWN_MEMORY)
    level = _DEFAULT_LEVEL if job.optimization_level is None else job.optimization_level
    return replace(
        job,
        workspace_bytes=max(before // 4, 1),
        tactic_bytes=max(before // 2, 1),
        optimization_level=max(level - 1, 0),
    )


def _build_once(job: Job, cache: Path | None, progress: OnProgress | None) -> Outcome:
    """Builds; the measured times replace those that were there only after a whole build."""
    with ExitStack() as stack:
        if cache is not None:
            written = stack.enter_context(replacing(cache))
            job = replace(job, timing_cache=str(cache), timing_cache_out=str(written))
        return build_in_process(job, progress=progress)


def _timing_cache(
    options: BuildOptions, library: Library, device: CudaDevice | None
) -> Path | None:
    """Returns the file of measured times; TensorRT for RTX measures nothing."""
    if options.timing_cache is not None:
        return options.timing_cache
    if library != "tensorrt" or device is None:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"sm{device.capability[0]}{device.capability[1]}.timing"
    return make_folder(cache / "cclseg" / "tensorrt") / name


def _identity(plugin: Path | None, outcome: Outcome) -> Plugin | None:
    """Returns what the engine calls; a parser may have preferred the body of the same name."""
    if plugin is None:
        return None
    if not outcome.calls_plugin:
        _log.warning(
            "the plugin is not used: no node asks for it, for the correlation is in the file as "
            "standard operators; export it for this library: cclseg export CHECKPOINT -o DIR "
            "--target tensorrt --calib DATA"
        )
        return None
    return Plugin(_PLUGIN_NAME, _PLUGIN_VERSION, file_sha256(plugin))


def _precision(content: OnnxFile) -> str:
    if "QuantizeLinear" in content.op_counts:
        return "int8"
    return "fp16" if content.inputs and content.inputs[0].dtype == "float16" else "fp32"
