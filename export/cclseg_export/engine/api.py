"""TensorRT and TensorRT for RTX: the one place that calls their builder.

The table says where each call is seen to work. "RTX": the tests build with TensorRT for RTX 1.7,
for which no GPU is needed. The others are only found, by name and signature, in the Python bindings
of TensorRT 10.3, 10.13 and 11.4.

======================================================  =============  ============================
call                                                    exercised      elsewhere
======================================================  =============  ============================
Logger, Builder, create_network, create_builder_config  RTX
init_libnvinfer_plugins                                 RTX
OnnxParser: parse, supports_operator, get_error         RTX
ParserError: desc, node_name, node_operator             RTX
get_plugin_registry().load_library, get_creator         RTX, lean
optimization profiles, set_memory_pool_limit            RTX
builder_optimization_level, IProgressMonitor            RTX
build_serialized_network                                RTX
create_timing_cache, set_timing_cache, serialize        RTX (no-ops)   times: TensorRT with a GPU
hardware_compatibility_level                            no: ignored    TensorRT with a GPU
BuilderFlag.VERSION_COMPATIBLE                          no: refused    TensorRT with a GPU
default_device_type, DLA_core, can_run_on_DLA           RTX (no core)  a Jetson with DLA
======================================================  =============  ============================
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cclseg.errors import MissingDependencyError
from cclseg.tensorrt_library import import_library

from .job import BuildRefusedError, Job
from .progress import PhaseTree

PLUGIN_OPERATOR = ("LocalCorrelation", "1", "cclseg")
"""Name, version and namespace of the operator that our plugin brings."""

_LEVELS = {"none": "NONE", "ampere-plus": "AMPERE_PLUS",
           "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}  # fmt: skip
_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|bad_alloc|cannot allocate|OOM", re.IGNORECASE)
_WORKSPACE = re.compile(r"workspace", re.IGNORECASE)
_MOST_LINES = 3


class NetworkBuilder:
    """One network on its way to an engine.

    Args:
        job: What to build.
        warn: Called with each warning of the library.

    Raises:
        BuildRefusedError: The library is not there.
    """

    def __init__(self, job: Job, *, warn: Callable[[str], None]) -> None:
        try:
            self._trt: Any = import_library(job.library)
        except MissingDependencyError as error:
            raise BuildRefusedError("missing", str(error)) from error
        self._job = job
        self._errors: list[str] = []
        self._logger = _make_logger(self._trt, self._errors, warn)
        try:
            self._builder = self._trt.Builder(self._logger)
        except TypeError as error:  # the bindings' answer to a library that gives no builder
            raise BuildRefusedError("refused", self._said()) from error
        # Some standard operators, such as DeformConv, become plugins that the library brings.
        self._trt.init_libnvinfer_plugins(self._logger, "")
        self._network = self._new_network()
        self._config = self._builder.create_builder_config()

    @property
    def library_version(self) -> str:
        """Version of the library."""
        return str(self._trt.__version__)

    def load_plugin(self, path: str) -> None:
        """Makes the operators of a compiled library known.

        Raises:
            BuildRefusedError: It is no plugin library, or brings another operator.
        """
        registry = self._builder.get_plugin_registry()
        if registry.load_library(path) is None or registry.get_creator(*PLUGIN_OPERATOR) is None:
            raise BuildRefusedError("plugin", self._said())

    @property
    def calls_plugin(self) -> bool:
        """Whether the network, once it is parsed, holds an operator of a plugin."""
        layers = (self._network.get_layer(index) for index in range(self._network.num_layers))
        return any(layer.type == self._trt.LayerType.PLUGIN_V3 for layer in layers)

    def parse(self) -> str:
        """Reads the network from its file.

        Returns:
            SHA-256 of the bytes that were read.

        Raises:
            BuildRefusedError: It holds operators that the library does not have (all of them are
                named), or the library refuses it.
        """
        parser = self._trt.OnnxParser(self._network, self._logger)
        unknown = [name for name in self._job.operators if not parser.supports_operator(name)]
        if unknown:
            raise BuildRefusedError("unsupported", ", ".join(unknown))
        content = Path(self._job.model).read_bytes()
        if not parser.parse(content, self._job.model):
            errors = [parser.get_error(index) for index in range(parser.num_errors)]
            raise BuildRefusedError("parse", "; ".join(map(_described, errors)) or self._said())
        return hashlib.sha256(content).hexdigest()

    def configure(self) -> None:
        """Sets everything that the job asks for.

        Raises:
            BuildRefusedError: The library does not have it.
        """
        trt, job, config = self._trt, self._job, self._config
        pools = {"WORKSPACE": job.workspace_bytes, "TACTIC_DRAM": job.tactic_bytes}
        for pool, size in pools.items():
            if size is not None:
                config.set_memory_pool_limit(getattr(trt.MemoryPoolType, pool), size)
        if job.optimization_level is not None:
            config.builder_optimization_level = job.optimization_level
        if job.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if job.hardware_compatibility != "none":
            self._set_hardware_compatibility()
        profile = self._builder.create_optimization_profile()
        for name, shapes in job.shapes.items():
            profile.set_shape(name, *map(tuple, shapes))
        if config.add_optimization_profile(profile) < 0:
            raise BuildRefusedError("option", f"the shapes {dict(job.shapes)}: {self._said()}")
        if job.dla_core is not None:
            self._use_dla(job.dla_core)

    def use_timing_cache(self, content: bytes) -> None:
        """Starts from measured kernel times; damaged ones, or those of another device, are not."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # no-ops in TensorRT for RTX
            cache = self._config.create_timing_cache(content)
            # False: times of another device or version are refused.
            if cache is None or not self._config.set_timing_cache(cache, False):
                fresh = self._config.create_timing_cache(b"")
                self._config.set_timing_cache(fresh, False)

    def timing_cache(self) -> bytes:
        """Returns the kernel times after the build, those it started from included."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            cache = self._config.get_timing_cache()
            return bytes(cache.serialize()) if cache is not None else b""

    def build(self, report: Callable[[float, str], bool]) -> memoryview:
        """Builds the engine; takes seconds to an hour.

        Args:
            report: Called with the share that is done and what is done now; False ends the build.

        Raises:
            BuildRefusedError: No engine came out; says what the library said.
        """
        monitor = _make_monitor(self._trt, report)
        self._config.progress_monitor = monitor
        plan = self._builder.build_serialized_network(self._network, self._config)
        if plan is None:
            said = self._said()
            if _OUT_OF_MEMORY.search(said):
                raise BuildRefusedError("memory", said)
            raise BuildRefusedError("workspace" if _WORKSPACE.search(said) else "refused", said)
        return memoryview(plan)

    def _new_network(self) -> Any:  # noqa: ANN401 - a type of the library
        """Makes a network whose types are those of its file, never chosen by the builder.

        TensorRT 11 knows no other kind and may drop the flag.
        """
        flag = getattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return self._builder.create_network(0 if flag is None else 1 << int(flag))

    def _set_hardware_compatibility(self) -> None:
        name = _LEVELS[self._job.hardware_compatibility]
        level = getattr(self._trt.HardwareCompatibilityLevel, name, None)
        if level is None:
            raise BuildRefusedError(
                "option",
                f"{self._job.library} {self.library_version} builds no engines of the kind "
                f"'{self._job.hardware_compatibility}'",
            )
        self._config.hardware_compatibility_level = level

    def _use_dla(self, core: int) -> None:
        """Puts the network on the accelerator, once it is known what would not run there."""
        cores = self._builder.num_DLA_cores
        if not 0 <= core < cores:
            raise BuildRefusedError(
                "option", f"this device has {cores} deep-learning accelerators; core {core} is none"
            )
        trt, config = self._trt, self._config
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = core
        layers = [self._network.get_layer(index) for index in range(self._network.num_layers)]
        outside = dla_outsiders(layers, config.can_run_on_DLA, constant=trt.LayerType.CONSTANT)
        if outside and not self._job.gpu_fallback:
            raise BuildRefusedError(
                "option",
                f"the accelerator cannot run {len(outside)} of {len(layers)} layers "
                f"({', '.join(outside[:8])}{', ...' if len(outside) > 8 else ''}); allow the GPU "
                "to run them with --gpu-fallback, at the cost of a copy at each border",
            )
        if outside:
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)

    def _said(self) -> str:
        return "; ".join(self._errors[-_MOST_LINES:]) or "it gave no reason"


def dla_outsiders(
    layers: Sequence[Any], can_run: Callable[[Any], bool], *, constant: object
) -> list[str]:
    """Names the layers that the accelerator cannot run; weights run nowhere and are not counted."""
    return [layer.name for layer in layers if layer.type != constant and not can_run(layer)]


def _described(error: Any) -> str:  # noqa: ANN401 - a type of the library
    node = f"{error.node_operator()} '{error.node_name()}': " if error.node_operator() else ""
    # Lines that begin with a place in the source are about CUDA, which need not be there to read.
    lines = [line for line in error.desc().splitlines() if not line.startswith("[")]
    return node + " ".join(" ".join(lines or [error.desc()]).split())


def _make_logger(trt: Any, errors: list[str], warn: Callable[[str], None]) -> Any:  # noqa: ANN401
    """Makes a logger that keeps errors for messages and passes warnings on."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                errors.append(" ".join(message.split()))
            elif severity == trt.ILogger.WARNING:
                warn(" ".join(message.split()))

    return Logger()


def _make_monitor(trt: Any, report: Callable[[float, str], bool]) -> Any:  # noqa: ANN401
    """Makes a progress monitor that reports the share of all phases together."""
    tree = PhaseTree()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            tree.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            tree.step(phase_name, step)
            return report(tree.share, tree.innermost)

        def phase_finish(self, phase_name: str) -> None:
            tree.finish(phase_name)

    return Monitor()
