"""Runs a network in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..errors import BackendError, MissingDependencyError
from ..onnx_file import load_onnx, spec_of
from ..ops_build import OPERATOR, find_cpu_library
from .base import Backend, check_interface, usable_threads

if TYPE_CHECKING:
    from ..frame import FloatArray
    from ..spec import ModelSpec

try:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as _ort
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "onnxruntime", extra="cpu", purpose="the backend 'onnxruntime'"
    ) from error

# These derive from Exception alone, so each is named.
ORT_ERRORS = (
    _ort.EngineError, _ort.EPFail, _ort.Fail, _ort.InvalidArgument, _ort.InvalidGraph,
    _ort.InvalidProtobuf, _ort.ModelLoaded, _ort.NoModel, _ort.NoSuchFile, _ort.NotImplemented,
    _ort.RuntimeException, RuntimeError,
)  # fmt: skip
_SILENT_BELOW_ERROR = 3


class OnnxRuntimeBackend(Backend):
    """A network in ONNX Runtime on the CPU.

    Example:
        >>> with OnnxRuntimeBackend.open(Path("model.onnx")) as backend:  # doctest: +SKIP
        ...     logits = backend.infer(images)
    """

    name = "onnxruntime"
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)

    def __init__(
        self, session: onnxruntime.InferenceSession, spec: ModelSpec, *, output: str
    ) -> None:
        super().__init__(spec)
        self._session: onnxruntime.InferenceSession | None = session
        self._input = session.get_inputs()[0].name
        self._output = output

    @classmethod
    def open(
        cls, path: Path, *, spec: ModelSpec | None = None, threads: int | None = None
    ) -> OnnxRuntimeBackend:
        """Loads an ONNX file; see :meth:`Backend.open`."""
        content, model = load_onnx(path)
        spec = spec or spec_of(path, content)
        logits = check_interface(path, spec, content.inputs, content.outputs)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_threads(threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT_BELOW_ERROR
        # Threads that spin while they wait take the processors from the decoder and the writer.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        compiled = find_cpu_library("onnxruntime") if OPERATOR in content.op_counts else None
        try:
            if compiled is not None:
                options.register_custom_ops_library(str(compiled))
            session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except ORT_ERRORS as error:
            raise BackendError(f"ONNX Runtime cannot load {path}: {error}") from error
        return cls(session, spec, output=logits.name)

    def _infer(self, images: FloatArray) -> FloatArray:
        if self._session is None:
            raise BackendError(f"the network '{self.spec.name}' is closed; open it again")
        try:
            logits: FloatArray = self._session.run([self._output], {self._input: images})[0]
        except ORT_ERRORS as error:
            raise BackendError(
                f"ONNX Runtime failed in the network '{self.spec.name}': {error}"
            ) from error
        return logits

    def close(self) -> None:
        """Frees the session. May be called twice."""
        self._session = None
