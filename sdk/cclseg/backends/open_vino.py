"""Runs a network in OpenVINO."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..compiled_cache import is_wanted, keep_entry, load_entry
from ..errors import BackendError, MissingDependencyError
from ..onnx_file import TensorInfo, load_onnx, spec_of
from ..onnx_inline import inline_function
from ..ops_build import OPERATOR, find_cpu_library
from ..protobuf import DamagedError
from ..spec import ModelSpec
from .base import Backend, check_interface, usable_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openvino import AsyncInferQueue, CompiledModel, Core, InferRequest, Model

    from ..frame import FloatArray

try:
    import openvino
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "openvino", extra="cpu", purpose="the backend 'openvino'"
    ) from error

_log = logging.getLogger(__name__)

# Compiling a second time costs about as much as this many tiles of the default model, so a single
# photograph is not worth it and a video is.
_TILES_BEFORE_STREAMS = 24


class OpenVinoBackend(Backend):
    """A network in OpenVINO on the CPU.

    A lone tile is computed by all threads together. Once calls with several tiles keep coming,
    the network is compiled once more with one stream per thread, which spends 16 to 24 % less
    processor time per tile and leaves it to the decoder and the writer.

    OpenVINO would choose bfloat16 by itself where the processor has it; here the network is
    computed in the precision of its file.

    Example:
        >>> with OpenVinoBackend.open(Path("model.onnx")) as backend:  # doctest: +SKIP
        ...     logits = backend.infer(images)
    """

    name = "openvino"
    suffixes: ClassVar[tuple[str, ...]] = (".onnx", ".xml")
    tiles_per_call = 8

    def __init__(
        self,
        core: Core,
        model: Model,
        spec: ModelSpec,
        *,
        output: str,
        threads: int,
        origin: str = "",
    ) -> None:
        super().__init__(spec)
        self._origin = origin
        self._core = core  # knows the operators of the model
        self._model: Model | None = model
        self._output = output
        self._threads = threads
        self._request: InferRequest | None = self._compiled(streams=1).create_infer_request()
        self._queue: AsyncInferQueue | None = None
        self._tiles_in_groups = 0
        self._logits: FloatArray = np.empty((0, 0, 0, 0), np.float32)

    @classmethod
    def open(
        cls, path: Path, *, spec: ModelSpec | None = None, threads: int | None = None
    ) -> OpenVinoBackend:
        """Loads an ONNX file or an OpenVINO IR (.xml); see :meth:`Backend.open`."""
        threads = usable_threads(threads)
        compiled: Path | None = None
        source: bytes | Path = path
        if path.suffix.lower() == ".onnx":  # damage and foreign content get their own messages
            content, source = load_onnx(path)
            spec = spec or spec_of(path, content)
            check_interface(path, spec, content.inputs, content.outputs)
            if OPERATOR in content.op_counts:
                compiled = find_cpu_library("openvino")
                if compiled is None:
                    source = _with_body(path, source)
        elif _holds_operator(path):
            compiled = find_cpu_library("openvino")
        try:
            core = openvino.Core()
            if compiled is not None:
                core.add_extension(str(compiled))
            model = core.read_model(source)
            spec = spec or ModelSpec.from_metadata(_metadata(model), name=path.stem)
            logits = check_interface(path, spec, _infos(model.inputs), _infos(model.outputs))
            model.reshape({model.input(0): [1, len(spec.bands), *spec.input_hw]})
            origin = _origin(source, compiled) if path.suffix.lower() == ".onnx" else ""
            return cls(core, model, spec, output=logits.name, threads=threads, origin=origin)
        except RuntimeError as error:
            if isinstance(error, BackendError):
                raise
            raise BackendError(f"OpenVINO cannot load {path}: {error}") from error

    def _compiled(self, *, streams: int) -> CompiledModel:
        options: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": streams,
        }
        if not self._origin:
            return self._core.compile_model(self._model, "CPU", options)
        parts = ("openvino", openvino.get_version(), self._origin, self.spec.input_hw, options)
        return self._kept(parts, options) or self._kept_from_now_on(parts, options)

    def _kept(self, parts: Sequence[object], options: dict[str, object]) -> CompiledModel | None:
        """Returns the network as an earlier start compiled it; see :mod:`cclseg.compiled_cache`."""
        entry = load_entry(*parts)
        if entry is None:
            return None
        try:
            return self._core.import_model(io.BytesIO(entry), "CPU", options)
        except RuntimeError as error:
            _log.warning("OpenVINO cannot load what it compiled before: %s; compiling anew", error)
            return None

    def _kept_from_now_on(
        self, parts: Sequence[object], options: dict[str, object]
    ) -> CompiledModel:
        network = self._core.compile_model(self._model, "CPU", options)
        if is_wanted():
            stream = io.BytesIO()
            network.export_model(stream)
            keep_entry(stream.getvalue(), *parts)
        return network

    def _infer(self, images: FloatArray) -> FloatArray:
        if self._request is None:
            raise BackendError(f"the network '{self.spec.name}' is closed; open it again")
        try:
            if len(images) > 1 and self._threads > 1:
                self._count_group(len(images))
            if self._queue is not None and len(images) > 1 and self._logits.size:
                return self._infer_in_streams(self._queue, images)
            return self._infer_in_sequence(self._request, images)
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO failed in the network '{self.spec.name}': {error}"
            ) from error

    def _count_group(self, tiles: int) -> None:
        self._tiles_in_groups += tiles
        if self._queue is None and self._tiles_in_groups >= _TILES_BEFORE_STREAMS:
            _log.info("compiling '%s' for %d parallel streams", self.spec.name, self._threads)
            self._queue = openvino.AsyncInferQueue(self._compiled(streams=self._threads))

    def _infer_in_sequence(self, request: InferRequest, images: FloatArray) -> FloatArray:
        for index in range(len(images)):
            request.infer({0: images[index : index + 1]}, share_inputs=True)
            logits = request.get_tensor(self._output).data
            self._make_room(len(images), logits.shape[1:])
            self._logits[index] = logits[0]
        return self._logits[: len(images)]

    def _infer_in_streams(self, queue: AsyncInferQueue, images: FloatArray) -> FloatArray:
        self._make_room(len(images), self._logits.shape[1:])

        def keep(request: InferRequest, index: int) -> None:
            self._logits[index] = request.get_tensor(self._output).data[0]

        queue.set_callback(keep)
        for index in range(len(images)):
            queue.start_async({0: images[index : index + 1]}, index, share_inputs=True)
        queue.wait_all()
        return self._logits[: len(images)]

    def _make_room(self, tiles: int, logits_chw: tuple[int, ...]) -> None:
        """Keeps the room for logits of earlier calls where it suffices."""
        if len(self._logits) < tiles or self._logits.shape[1:] != tuple(logits_chw):
            self._logits = np.empty((max(tiles, self.tiles_per_call), *logits_chw), np.float32)

    def close(self) -> None:
        """Frees the compiled networks. May be called twice."""
        self._request = self._queue = self._model = None


def _origin(source: bytes | Path, compiled: Path | None) -> str:
    """Returns what a compiled network was made of; empty where that lies in several files."""
    if isinstance(source, Path):
        return ""
    kernel = compiled.name if compiled is not None else "no operator"
    return f"{hashlib.sha256(source).hexdigest()} with {kernel}"


def _with_body(path: Path, source: bytes | Path) -> bytes:
    """Returns a model with standard operators for ours, which OpenVINO does not know."""
    try:
        inlined = (
            inline_function(source, *OPERATOR.split(".")) if isinstance(source, bytes) else None
        )
    except DamagedError as error:
        raise BackendError(f"OpenVINO cannot load {path}: {error}; export it again") from error
    if inlined is None:
        raise BackendError(
            f"OpenVINO cannot load {path}: it has no {OPERATOR}, and the file holds no body that "
            "could take its place; compile it with: cclseg ops build"
        )
    _log.info("%s: %s runs as standard operators; faster with: cclseg ops build", path, OPERATOR)
    return inlined


def _holds_operator(path: Path) -> bool:
    """Tells whether an OpenVINO IR holds our operator, as its layers' types name it."""
    kind = OPERATOR.rpartition(".")[2].encode()
    try:
        return b'type="' + kind + b'"' in path.read_bytes()
    except OSError as error:
        raise BackendError(f"cannot read {path}: {error.strerror}; check the path") from error


def _infos(ports: list[Any]) -> list[TensorInfo]:
    return [
        TensorInfo(
            name=port.any_name if port.names else "",
            dtype=str(port.element_type.to_dtype()),
            shape=tuple(
                axis.get_length() if axis.is_static else None for axis in port.partial_shape
            ),
        )
        for port in ports
    ]


def _metadata(model: Model) -> dict[str, str]:
    """Returns the metadata that OpenVINO carried over from an ONNX file into an IR file."""
    if not model.has_rt_info(["framework"]):
        return {}
    content = model.get_rt_info(["framework"]).value
    return {key: str(value) for key, value in content.items()} if isinstance(content, dict) else {}
