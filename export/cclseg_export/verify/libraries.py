"""Runs pieces of networks in each library of this machine, with and without compiled operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cclseg.errors import BackendError, MissingDependencyError
from cclseg.ops_build import find_cpu_library

from ..operator import inline_function

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

Arrays = Mapping[str, "NDArray[Any]"]
Run = Callable[[Arrays], "dict[str, NDArray[Any]]"]
"""Takes the inputs of a network by name, and returns its outputs by name."""

REFERENCE = "ONNX Runtime without optimisation"
"""The library that all others are compared with: no nodes fused, no kernel of ours."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run a network.

    Attributes:
        name: Its name in reports.
        load: Makes a network ready; raises BackendError where the library refuses it.
    """

    name: str
    load: Callable[[onnx.ModelProto], Run]

    @property
    def backend(self) -> str:
        """Name of the library, whether with the compiled operator or without."""
        return self.name.partition(",")[0]


def find_variants(*, has_operator: bool) -> tuple[list[Variant], dict[str, str]]:
    """Finds the ways to run a network on this machine, the reference first.

    Args:
        has_operator: Whether the network holds the correlation as one node.

    Returns:
        The ways that there are, and the reason for each that there is not.

    Raises:
        MissingDependencyError: ONNX Runtime, which is the reference, is not installed.
    """
    found = [
        Variant(REFERENCE, lambda model: _load_onnx_runtime(model, optimised=False)),
        Variant("onnxruntime", _load_onnx_runtime),
    ]
    absent: dict[str, str] = {}
    kernel = find_cpu_library("onnxruntime") if has_operator else None
    if kernel is not None:
        load = _with_kernel(_load_onnx_runtime, kernel)
        found.append(Variant("onnxruntime, compiled operator", load))
    elif has_operator:
        absent["onnxruntime, compiled operator"] = "not compiled; run: cclseg ops build"
    try:
        import cclseg.backends.open_vino  # noqa: F401 - says what to install
    except MissingDependencyError as error:
        return found, absent | {"openvino": str(error)}
    found.append(Variant("openvino", _load_openvino))
    kernel = find_cpu_library("openvino") if has_operator else None
    if kernel is not None:
        found.append(Variant("openvino, compiled operator", _with_kernel(_load_openvino, kernel)))
    elif has_operator:
        absent["openvino, compiled operator"] = "not compiled; run: cclseg ops build"
    return found, absent


def _with_kernel(load: Callable[..., Run], kernel: Path) -> Callable[[onnx.ModelProto], Run]:
    return lambda model: load(model, kernel=kernel)


def _load_onnx_runtime(
    model: onnx.ModelProto, *, optimised: bool = True, kernel: Path | None = None
) -> Run:
    import onnxruntime

    from cclseg.backends.onnx_runtime import ORT_ERRORS  # says what to install

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if kernel is not None:
        options.register_custom_ops_library(str(kernel))
    names = [value.name for value in model.graph.output]
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except ORT_ERRORS as error:
        raise BackendError(f"ONNX Runtime cannot load it: {_first_line(error)}") from error

    def run(inputs: Arrays) -> dict[str, NDArray[Any]]:
        try:
            outputs = session.run(names, dict(inputs))
        except ORT_ERRORS as error:
            raise BackendError(f"ONNX Runtime failed: {_first_line(error)}") from error
        return dict(zip(names, outputs, strict=True))

    return run


def _load_openvino(model: onnx.ModelProto, *, kernel: Path | None = None) -> Run:
    import openvino

    core = openvino.Core()
    if kernel is not None:
        core.add_extension(str(kernel))
    else:
        model = inline_function(model)
    names = [value.name for value in model.graph.output]
    try:
        network = core.read_model(model.SerializeToString())
        compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot load it: {_first_line(error)}") from error

    def run(inputs: Arrays) -> dict[str, NDArray[Any]]:
        try:
            outputs = compiled([inputs[port.any_name] for port in network.inputs])
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed: {_first_line(error)}") from error
        return {name: outputs[place] for place, name in enumerate(names)}

    return run


def _first_line(error: BaseException) -> str:
    """Shortens what a library says: what stands at the end is the reason, before it its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
