"""Finds the files that an ONNX file keeps weights in, and refuses those that it has no right to.

A tensor may say "my bytes stand in that file". Such a name comes from whoever made the model, and
libraries have followed names like ``../../.ssh/id_ed25519``, links, and even a name of ONNX Runtime
that stands for an address in memory. So every tensor of a file is looked at, wherever it stands,
and only plain files in the model's own folder are let through.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from .errors import BackendError
from .protobuf import DamagedError, Field, fields_of, text_of

_DEEPEST = 64
"""Graphs within graphs beyond which a file is hostile; each takes some of Python's stack."""

_TENSOR = "tensor"
# Which fields of which message lead to tensors; numbers as in onnx.proto.
_ROADS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
_EXTERNAL_DATA = 13


@dataclass(frozen=True, slots=True)
class ExternalData:
    """Bytes of a tensor that stand in another file.

    Attributes:
        location: Name of the file as the model gives it, relative to the model's folder.
        offset: Where the bytes begin.
        length: How many there are, None for all up to the file's end.
    """

    location: str
    offset: int = 0
    length: int | None = None


def find_external_data(data: bytes) -> tuple[ExternalData, ...]:
    """Returns what the tensors of an ONNX file say of other files, each once.

    Args:
        data: The whole file.

    Raises:
        DamagedError: The bytes are no ONNX file.
    """
    return tuple(dict.fromkeys(_found(data, Field(0, 0, 0, len(data)), "model", depth=0)))


def _found(data: bytes, message: Field, kind: str, *, depth: int) -> Iterator[ExternalData]:
    if depth > _DEEPEST:
        raise DamagedError(f"graphs within graphs at byte {message.start}")
    roads = _ROADS[kind]
    for field in fields_of(data, message.start, message.stop):
        target = roads.get(field.number)
        if target == _TENSOR:
            yield from _of_tensor(data, field)
        elif target is not None:
            yield from _found(data, field, target, depth=depth + 1)


def _of_tensor(data: bytes, tensor: Field) -> Iterator[ExternalData]:
    # What counts is that a name stands there, not whether the tensor says that it uses it: which
    # of two contradicting fields a library believes is its own affair.
    entries = [
        _entry(data, field)
        for field in fields_of(data, tensor.start, tensor.stop)
        if field.number == _EXTERNAL_DATA
    ]
    locations = [value for key, value in entries if key == "location"]
    for location in locations or ([""] if entries else []):
        values = dict(entries)
        length = _count(values, "length")
        yield ExternalData(location, _count(values, "offset") or 0, length)


def _entry(data: bytes, message: Field) -> tuple[str, str]:
    texts = {1: "", 2: ""}
    for field in fields_of(data, message.start, message.stop):
        if field.number in texts:
            texts[field.number] = text_of(data, field)
    return texts[1], texts[2]


def _count(values: Mapping[str, str], key: str) -> int | None:
    text = values.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise DamagedError(f"external data with {key} {text[:40]!r}")
    return int(text)


def check_external_data(model: Path, found: tuple[ExternalData, ...]) -> tuple[Path, ...]:
    """Refuses external data that is not a plain file in the model's folder.

    Args:
        model: The ONNX file.
        found: Of :func:`find_external_data`.

    Returns:
        The files, each once.

    Raises:
        BackendError: A name leads elsewhere, or the file is a link, absent or too short.
    """
    files: dict[Path, None] = {}
    for part in found:
        path = _inside(model, part.location)
        size = _plain_size(model, path)
        if part.offset + (part.length or 0) > size:
            raise BackendError(
                f"{model} takes weights from {path.name} up to byte "
                f"{part.offset + (part.length or 0)}, the file has {size}; copy both again"
            )
        files[path] = None
    return tuple(files)


def _inside(model: Path, location: str) -> Path:
    """Returns the path that a location stands for, below the model's folder by its name alone."""
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if (
        not location
        or "\0" in location
        or posix.is_absolute()
        or windows.drive
        or windows.root
        or ".." in windows.parts  # parts of a Windows path end at slashes of both kinds
    ):
        raise BackendError(
            f"{model} takes weights from {location[:100]!r}; expected the name of a file in its "
            "own folder: the model may be hostile; if it is yours, save it again with its weights "
            "beside it"
        )
    return model.parent / posix


def _plain_size(model: Path, path: Path) -> int:
    """Returns the size of a file that is reached without links."""
    try:
        for step in (path, *path.parents):
            if step == model.parent:
                break
            if step.is_symlink():
                raise BackendError(
                    f"{model} takes weights from {path}, and {step} is a link; put the file "
                    "itself beside the model"
                )
        status = path.lstat()
    except OSError as error:
        raise BackendError(
            f"{model} takes weights from {path}: {error.strerror}; copy the file with the model"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise BackendError(f"{model} takes weights from {path}; expected a plain file there")
    return status.st_size
