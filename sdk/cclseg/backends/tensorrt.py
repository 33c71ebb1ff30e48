"""Runs an engine in TensorRT, or in TensorRT for RTX, on an NVIDIA device."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..built_engines import ENGINE_SUFFIXES
from ..cuda_memory import CudaStream
from ..engine_file import load_plan, read_here
from ..engine_record import read_record
from ..errors import BackendError, MissingDependencyError, SpecError
from ..onnx_file import TensorInfo
from ..tensorrt_library import find_module, import_library, missing
from .base import Backend, check_interface, logits_hw

if TYPE_CHECKING:
    from types import ModuleType

    from ..frame import FloatArray
    from ..spec import ModelSpec

# Imported when an engine is opened: only its sidecar says which of the two it is for.
if find_module("tensorrt") is None and find_module("tensorrt-rtx") is None:
    raise MissingDependencyError(missing("tensorrt"))

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32"}
_LAST_ERRORS = 3


class TensorRtBackend(Backend):
    """An engine on the first NVIDIA device.

    Everything that its sidecar says is checked before the library gets the bytes. One call runs as
    many tiles at once as the engine was built for.

    Example:
        >>> with TensorRtBackend.open(Path("model.engine")) as backend:  # doctest: +SKIP
        ...     logits = backend.infer(images)
    """

    name = "tensorrt"
    suffixes: ClassVar[tuple[str, ...]] = ENGINE_SUFFIXES
    device = "cuda:0"

    def __init__(self, engine: _Engine, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._engine: _Engine | None = engine
        self.tiles_per_call = engine.most_tiles

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
        if self._engine is None:
            raise BackendError(f"the network '{self.spec.name}' is closed; open it again")
        tiles = self._engine.most_tiles
        groups = [images[first : first + tiles] for first in range(0, len(images), tiles)]
        return np.concatenate([self._engine.run(group) for group in groups])

    def close(self) -> None:
        """Frees the engine and its device memory. May be called twice."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
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
    """A deserialised engine with its execution context and device memory."""

    def __init__(
        self, path: Path, library: ModuleType, plan: bytes, spec: ModelSpec, needs: _Needs
    ) -> None:
        self._name = spec.name
        self._errors: list[str] = []
        with contextlib.ExitStack() as undo:
            self._stream = CudaStream()
            undo.callback(self._stream.close)
            with self._stream.current():
                self._load(path, library, plan, needs)
                inputs, outputs = _tensors(library, self._engine)
                logits = check_interface(path, spec, inputs, outputs)
                self._input, self._output = inputs[0].name, logits.name
                # Of the only profile: smallest, usual and largest shape.
                shapes = self._engine.get_tensor_profile_shape(self._input, 0)
                self._fewest_tiles, self.most_tiles = int(shapes[0][0]), int(shapes[2][0])
                self._tile_shape = (len(spec.bands), *spec.input_hw)
                self._logits_shape = (spec.num_classes, *logits_hw(spec))
                self._bind(outputs)
            undo.pop_all()

    def _load(self, path: Path, library: ModuleType, plan: bytes, needs: _Needs) -> None:
        self._logger = _make_logger(library, self._errors)
        try:
            self._runtime: Any = library.Runtime(self._logger)
        except TypeError as error:  # the bindings' answer to a library that gives no runtime
            raise BackendError(f"{library.__name__} does not start: {self._said()}") from error
        library.init_libnvinfer_plugins(self._logger, "")  # those that the library brings
        if needs.plugin is not None:
            self._runtime.get_plugin_registry().load_library(str(needs.plugin))
        self._runtime.engine_host_code_allowed = needs.host_code
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BackendError(
                f"{library.__name__} {library.__version__} cannot load {path}: {self._said()}; "
                "build it again: cclseg build"
            )
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise BackendError(
                f"there is not enough device memory to run {path}: {self._said()}; end other "
                "programs, or build it with a smaller --workspace or fewer tiles (--max)"
            )

    def _bind(self, outputs: list[TensorInfo]) -> None:
        """Reserves device memory for the most tiles, of outputs that nobody reads, too."""
        shape = (self.most_tiles, *self._tile_shape)
        if not self._context.set_input_shape(self._input, shape):
            raise BackendError(f"the engine of '{self._name}' does not take {shape}")
        self._source = self._stream.allocate(4 * int(np.prod(shape)))
        self._context.set_tensor_address(self._input, self._source)
        for info in outputs:
            elements = int(np.prod(tuple(self._context.get_tensor_shape(info.name))))
            item_bytes = self._engine.get_tensor_bytes_per_component(info.name)
            address = self._stream.allocate(elements * item_bytes)
            self._context.set_tensor_address(info.name, address)
            if info.name == self._output:
                self._target = address

    def run(self, images: FloatArray) -> FloatArray:
        """Computes the logits of up to ``most_tiles`` tiles and waits for them."""
        asked = len(images)
        if asked < self._fewest_tiles:  # an engine may be built for no fewer
            more = images[-1:].repeat(self._fewest_tiles - asked, axis=0)
            images = np.concatenate([images, more])
        logits = np.empty((len(images), *self._logits_shape), np.float32)
        with self._stream.current():
            self._stream.upload(self._source, np.ascontiguousarray(images))
            accepted = self._context.set_input_shape(self._input, images.shape)
            if not accepted or not self._context.execute_async_v3(self._stream.handle):
                raise BackendError(
                    f"TensorRT failed in the network '{self._name}' on {images.shape}: "
                    f"{self._said()}"
                )
            self._stream.download(self._target, logits)
            self._stream.synchronize()
        return logits[:asked]

    def close(self) -> None:
        with self._stream.current():
            # In this order: each holds on to the next.
            self._context = None
            self._engine = None
            self._runtime = None
        self._stream.close()

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
