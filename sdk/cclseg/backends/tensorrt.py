"""Runs an engine in TensorRT, or in TensorRT for RTX, on an NVIDIA device."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..built_engines import ENGINE_SUFFIXES
from ..engine_file import load_plan, read_here
from ..engine_record import read_record
from ..errors import BackendError, CudaError, MissingDependencyError, SpecError
from ..gpu.device import Device
from ..onnx_file import TensorInfo
from ..tensorrt_library import find_module, import_library, missing
from .base import Backend, check_interface, logits_hw
from .buffer_sets import BufferSet, EngineAccess

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from ..frame import FloatArray
    from ..spec import ModelSpec
    from .buffer_sets import Call

# Imported when an engine is opened: only its sidecar says which of the two it is for.
if find_module("tensorrt") is None and find_module("tensorrt-rtx") is None:
    raise MissingDependencyError(missing("tensorrt"))

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32"}
_LAST_ERRORS = 3
_SETS = 2  # one is computed while the other is copied


class TensorRtBackend(Backend):
    """An engine on an NVIDIA device: that of the caller's CUDA context, or the first one.

    Everything that its sidecar says is checked before the library gets the bytes. One call runs as
    many tiles at once as the engine was built for. Two calls may be on their way, so that one is
    computed while the other is copied; from its second time on, a size of batch runs as a CUDA
    graph where the engine allows it.

    Attributes:
        device_ms: The device's time for the call that was collected last, copies included; None
            before the first one.

    Example:
        >>> with TensorRtBackend.open(Path("model.engine")) as backend:  # doctest: +SKIP
        ...     logits = backend.infer(images)
    """

    name = "tensorrt"
    suffixes: ClassVar[tuple[str, ...]] = ENGINE_SUFFIXES
    device_ms: float | None = None

    def __init__(self, engine: _Engine, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._engine: _Engine | None = engine
        self.device = f"cuda:{engine.device.index}"
        self.tiles_per_call = engine.tiles_per_call
        self.calls_in_flight = len(engine.sets)
        self.on_gpu = engine

    @classmethod
    def open(
        cls, path: Path, *, spec: ModelSpec | None = None, threads: int | None = None
    ) -> TensorRtBackend:
        """Loads an engine; see :meth:`Backend.open`. ``threads`` is of no use on a device.

        Raises:
            EngineMismatchError: The engine does not fit this machine, or has no sidecar.
            MissingDependencyError: The library that built it is not installed.
            CudaError: The driver failed.
        """
        record = read_record(path)
        spec = spec or record.spec
        if spec is None:
            raise SpecError(
                f"{path} does not say what its classes are; give a ModelSpec: "
                "Segmenter(path, spec=ModelSpec(name=..., class_names=(...)))"
            )
        here = read_here(record)
        plan = load_plan(path, record, here)
        library = import_library(record.library)
        needs = _Needs(plugin=here.plugin, host_code=record.version_compatible)
        engine = _Engine(path, library, plan, spec, needs)
        return cls(engine, spec)

    def _infer(self, images: FloatArray) -> FloatArray:
        return self._submit(images)()

    def _submit(self, images: FloatArray) -> Callable[[], FloatArray]:
        if self._engine is None:
            raise BackendError(f"the network '{self.spec.name}' is closed; open it again")
        device, tiles = self._engine.device, self.tiles_per_call
        groups = [images[first : first + tiles] for first in range(0, len(images), tiles)]
        with device.current():
            calls = [self._engine.start(group) for group in groups]

        def collect() -> FloatArray:
            logits = [call.settle() for call in calls]
            self.device_ms = sum(call.device_ms or 0 for call in calls)
            return logits[0] if len(logits) == 1 else np.concatenate(logits)

        return collect

    def close(self) -> None:
        """Frees the engine and its device memory. May be called twice."""
        if self._engine is not None:
            engine, self._engine, self.on_gpu = self._engine, None, None
            engine.close()


@dataclass(frozen=True, slots=True)
class _Needs:
    """What an engine asks of the library before it is deserialised.

    Attributes:
        plugin: Compiled operators to load.
        host_code: Whether the engine brings code for the processor: a version-compatible one holds
            the library that runs it.
    """

    plugin: Path | None
    host_code: bool


class _Engine:
    """A deserialised engine with its buffers on the device."""

    def __init__(
        self, path: Path, library: ModuleType, plan: bytes, spec: ModelSpec, needs: _Needs
    ) -> None:
        self._errors: list[str] = []
        self._turn = 0
        with contextlib.ExitStack() as undo:
            self.device = Device()
            undo.callback(self.device.close)
            with self.device.current():
                engine = self._load(path, library, plan, needs)
                self.access = self._access(path, library, engine, spec)
                self.sets: tuple[BufferSet, ...] = ()
                undo.callback(self._drop)
                try:
                    for _ in range(_SETS):
                        self.sets += (BufferSet(self.access),)
                except CudaError as error:
                    raise BackendError(
                        f"cannot reserve what {path} needs on the device: {error}; end other "
                        "programs, or build it with a smaller --workspace or fewer tiles (--max)"
                    ) from error
            undo.pop_all()

    def _load(self, path: Path, library: ModuleType, plan: bytes, needs: _Needs) -> Any:  # noqa: ANN401
        self._logger = _make_logger(library, self._errors)
        try:
            self._runtime: Any = library.Runtime(self._logger)
        except TypeError as error:  # the bindings' answer to a library that gives no runtime
            raise BackendError(f"{library.__name__} does not start: {self._said()}") from error
        library.init_libnvinfer_plugins(self._logger, "")  # those that the library brings
        if needs.plugin is not None:
            self._runtime.get_plugin_registry().load_library(str(needs.plugin))
        self._runtime.engine_host_code_allowed = needs.host_code
        engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BackendError(
                f"{library.__name__} {library.__version__} cannot load {path}: {self._said()}; "
                "build it again: cclseg build"
            )
        return engine

    def _access(
        self,
        path: Path,
        library: ModuleType,
        engine: Any,  # noqa: ANN401
        spec: ModelSpec,
    ) -> EngineAccess:
        inputs, outputs = _tensors(library, engine)
        logits = check_interface(path, spec, inputs, outputs)
        # Of the only profile: smallest, usual and largest shape.
        shapes = engine.get_tensor_profile_shape(inputs[0].name, 0)
        return EngineAccess(
            name=spec.name,
            engine=engine,
            on_demand=library.ExecutionContextAllocationStrategy.USER_MANAGED,
            device=self.device,
            input=inputs[0].name,
            output=logits.name,
            outputs=tuple(info.name for info in outputs),
            tile_shape=(len(spec.bands), *spec.input_hw),
            logits_shape=(spec.num_classes, *logits_hw(spec)),
            fewest_tiles=int(shapes[0][0]),
            most_tiles=int(shapes[2][0]),
            said=self._said,
        )

    @property
    def tiles_per_call(self) -> int:
        return self.access.most_tiles

    def start(self, images: FloatArray) -> Call:
        """Queues up to ``most_tiles`` tiles in the set whose turn it is."""
        self._turn = (self._turn + 1) % len(self.sets)
        return self.sets[self._turn].start(images)

    def close(self) -> None:
        with self.device.current():
            self._drop()
        self.device.close()

    def _drop(self) -> None:
        # In this order: each holds on to the next.
        with self.device.current():
            for buffers in self.sets:
                buffers.close()
        self.access.engine = None
        self._runtime = None

    def _said(self) -> str:
        return "; ".join(self._errors[-_LAST_ERRORS:]) or "it gave no reason"


def _tensors(library: ModuleType, engine: Any) -> tuple[list[TensorInfo], list[TensorInfo]]:  # noqa: ANN401
    """Describes the inputs and outputs of an engine."""
    inputs: list[TensorInfo] = []
    outputs: list[TensorInfo] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = engine.get_tensor_dtype(name).name
        shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name))
        is_input = engine.get_tensor_mode(name) == library.TensorIOMode.INPUT
        info = TensorInfo(name, _DTYPES.get(dtype, dtype.lower()), shape)
        (inputs if is_input else outputs).append(info)
    return inputs, outputs


def _make_logger(library: Any, errors: list[str]) -> Any:  # noqa: ANN401 - types of the library
    """Makes a logger that keeps errors for our messages."""

    class Logger(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            if severity in (library.ILogger.INTERNAL_ERROR, library.ILogger.ERROR):
                errors.append(" ".join(message.split()))

    return Logger()
