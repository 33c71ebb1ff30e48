"""OpenVINO's own form of a model: an .xml file with its weights in a .bin beside it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from cclseg.errors import BackendError, MissingDependencyError
from cclseg.files import make_folder, replacing
from cclseg.onnx_file import load_onnx
from cclseg.ops_build import OPERATOR


def write_ir(model: Path, target: Path) -> tuple[Path, Path]:
    """Converts an ONNX file; what it says of itself goes along.

    The precision stays as it is: OpenVINO's habit of storing weights in half precision is not
    followed, for it would change the model after its accuracy was measured.

    Args:
        model: The ONNX file.
        target: The .xml file; the weights are written beside it, before it.

    Returns:
        Both files.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
        BackendError: OpenVINO cannot read the model.
        SinkError: The files cannot be written.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError.for_extra(
            "openvino", extra="cpu", purpose="building for OpenVINO"
        ) from error
    content, _ = load_onnx(model)  # damage and foreign content get their own messages
    if OPERATOR in content.op_counts:
        raise BackendError(
            f"{model} holds {OPERATOR} as one node, which an .xml file cannot carry; load the "
            "ONNX file itself with the backend 'openvino', or export it for this target: "
            "cclseg export CHECKPOINT -o DIR --target openvino"
        )
    weights = target.with_suffix(".bin")
    make_folder(target.parent)
    with TemporaryDirectory(prefix=".cclseg-build-", dir=target.parent) as folder:
        description = Path(folder) / target.name
        try:
            openvino.save_model(
                openvino.Core().read_model(model), description, compress_to_fp16=False
            )
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot build {model}: {error}") from error
        for written, final in ((description.with_suffix(".bin"), weights), (description, target)):
            with replacing(final) as temporary:
                written.replace(temporary)
    return target, weights
