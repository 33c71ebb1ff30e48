"""Writing files so that a final name never stands on half a file; hashing them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError, SinkError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` and renames it to ``path`` on success.

    The temporary file keeps the suffix of ``path`` (libraries choose the format by it) and is
    removed when the body raises, so the final name holds either the whole file or what it held
    before. The data are flushed to the disk before the rename.

    Args:
        path: Where the finished file shall stand. Its folder must exist.

    Raises:
        SinkError: The folder cannot be written to or the disk is full.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        if isinstance(error, SinkError):
            raise
        reason = error.strerror or str(error)
        raise SinkError(
            f"cannot write {path}: {reason}; free space or choose another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes ``data`` to ``path`` as a whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, content: Any) -> None:  # noqa: ANN401 - whatever json accepts
    """Writes ``content`` as indented JSON to ``path``, as a whole or not at all.

    Not-a-number has no JSON form and is refused: a figure that does not exist is None.
    """
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def make_folder(path: Path) -> Path:
    """Creates a folder with its parents and returns it.

    Raises:
        SinkError: A file is in the way or the place is not writable.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SinkError(f"cannot make the folder {path}: {reason}; choose another place") from error
    if not os.access(path, os.W_OK):
        raise SinkError(f"the folder {path} is not writable; change its rights or choose another")
    return path


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal text, read in pieces.

    Raises:
        InputError: The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    return digest.hexdigest()


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
