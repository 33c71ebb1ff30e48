"""Which engines were built on this device.

An engine is machine code in a container that a library trusts, so one from elsewhere may do more
than compute masks. ``cclseg build`` records each engine that it writes; an engine that is not on
record is loaded only with a signature, see :mod:`cclseg.trust`. The record is worth as much as the
account that it lies in: who can write there could run programs anyway.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .files import file_sha256, make_folder, write_json

ENGINE_SUFFIXES = (".engine", ".plan", ".trt")


def engine_sidecar(engine: Path) -> Path:
    """Returns where the description of an engine stands, beside it."""
    return engine.with_name(f"{engine.name}.json")


def record_built(engine: Path) -> None:
    """Notes that this engine, with its sidecar, was built here. Both must be finished files.

    Args:
        engine: The engine; may be moved or renamed later, its sidecar with it.

    Raises:
        InputError: One of the files cannot be read.
        SinkError: The record cannot be written.
    """
    write_json(make_folder(_folder()) / _entry(_digests(engine)), {"engine": engine.name})


def was_built_here(engine: Path) -> bool:
    """Says whether an engine and its sidecar are byte for byte what was recorded.

    The answer holds for the bytes that are in the files now, so ask where nobody else can write.

    Raises:
        InputError: One of the files cannot be read.
    """
    return (_folder() / _entry(_digests(engine))).is_file()


def _digests(engine: Path) -> list[str]:
    sidecar = engine_sidecar(engine)
    return [file_sha256(engine), *([file_sha256(sidecar)] if sidecar.is_file() else [])]


def _entry(digests: list[str]) -> str:
    """Names the file of the record that stands for these contents, an engine's alone or both."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest() + ".json"


def _folder() -> Path:
    """Returns the folder of the record: ``cclseg/built_engines`` in the user's state folder."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "cclseg" / "built_engines"
