"""The build: an ONNX file in, an engine with its sidecar out."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cclseg.built_engines import record_built
from cclseg.engine_record import EngineRecord, Plugin, write_record
from cclseg.errors import SpecError
from cclseg.files import file_sha256, replacing
from cclseg.onnx_file import OnnxFile, load_onnx, spec_of

from .api import PLUGIN_OPERATOR
from .checks import check_machine, check_options, check_room, find_plugin, timing_cache
from .job import BuildRefusedError, Job
from .profiles import plan_profile
from .refusals import explained
from .supervise import OnProgress, Outcome, build_in_process

if TYPE_CHECKING:
    from cclseg.cuda_devices import CudaDevice
    from cclseg.spec import ModelSpec
    from cclseg.tensorrt_library import Library

    from .options import BuildOptions

_log = logging.getLogger(__name__)

_ATTEMPTS = 3
_DEFAULT_LEVEL = 3
_UNKNOWN_MEMORY = 4 << 30


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
    driver = check_machine(library)
    check_options(library, options)
    content, _ = load_onnx(model)
    spec = _spec_or_none(model, content)
    check_room(engine, model)
    job = _job(model, library, options, content, spec)
    device = driver.devices[0] if driver and driver.devices else None
    cache = timing_cache(options, library, device)
    start_s = time.monotonic()
    with replacing(engine) as temporary:
        job, outcome, attempts = _built(
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
            hardware_compatibility=job.hardware_compatibility,
            version_compatible=job.version_compatible,
            plugin=_identity(job, outcome),
            dla_core=job.dla_core,
            workspace_bytes=job.workspace_bytes,
            shapes=job.shapes,
            spec=spec,
        )
    write_record(engine, record)
    record_built(engine)
    return BuiltEngine(engine, record, time.monotonic() - start_s, attempts, outcome.warnings)


def _job(
    model: Path,
    library: Library,
    options: BuildOptions,
    content: OnnxFile,
    spec: ModelSpec | None,
) -> Job:
    """Returns the job, where its engine is written aside."""
    plugin = find_plugin(content, options)
    return Job(
        library=library,
        model=str(model),
        operators=tuple(name for name in content.op_counts if "." not in name),
        engine="",
        shapes=plan_profile(content.inputs, spec, options),
        plugin=str(plugin) if plugin else None,
        workspace_bytes=options.workspace_bytes,
        optimization_level=options.optimization_level,
        version_compatible=options.version_compatible,
        hardware_compatibility=options.hardware_compatibility,
        dla_core=options.dla_core,
        gpu_fallback=options.gpu_fallback,
    )


def _spec_or_none(model: Path, content: OnnxFile) -> ModelSpec | None:
    try:
        return spec_of(model, content)
    except SpecError as error:
        _log.warning("%s; give the spec when the engine is loaded", error)
        return None


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


def _identity(job: Job, outcome: Outcome) -> Plugin | None:
    """Returns what the engine calls; a parser may have preferred the body of the same name."""
    if job.plugin is None:
        return None
    if not outcome.calls_plugin:
        _log.warning(
            "the plugin is not used: no node asks for it, for the correlation is in the file as "
            "standard operators; export it for this library: cclseg export CHECKPOINT -o DIR "
            "--target tensorrt --calib DATA"
        )
        return None
    name, version, _ = PLUGIN_OPERATOR
    return Plugin(name, version, file_sha256(Path(job.plugin)))


def _precision(content: OnnxFile) -> str:
    if "QuantizeLinear" in content.op_counts:
        return "int8"
    return "fp16" if content.inputs and content.inputs[0].dtype == "float16" else "fp32"
