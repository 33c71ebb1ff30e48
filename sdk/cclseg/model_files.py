"""Which files a model consists of."""

from __future__ import annotations

from pathlib import Path

from .built_engines import ENGINE_SUFFIXES, engine_sidecar
from .onnx_external import check_external_data
from .onnx_file import read_onnx


def companions(model: Path, *, folder: Path | None = None) -> tuple[Path, ...]:
    """Returns the files that a model needs beside its own.

    Those are the files that an ONNX file keeps weights in, the ``.bin`` of an OpenVINO network
    and the description of an engine, the latter two where they are.

    Args:
        model: The model file, which is read.
        folder: Where its companions stand; None for the model's own folder.

    Raises:
        BackendError: An ONNX file is damaged, or takes weights from outside its folder.
    """
    suffix = model.suffix.lower()
    place = (folder or model.parent) / model.name
    if suffix == ".onnx":
        return check_external_data(place, read_onnx(model).external_data)
    beside: tuple[Path, ...] = ()
    if suffix == ".xml":
        beside = (place.with_suffix(".bin"),)
    elif suffix in ENGINE_SUFFIXES:
        beside = (engine_sidecar(place),)
    return tuple(path for path in beside if path.is_file())


def signature_of(model: Path) -> Path:
    """Returns where the signature of a model stands: beside it, under its whole name."""
    return model.with_name(f"{model.name}.sig")
