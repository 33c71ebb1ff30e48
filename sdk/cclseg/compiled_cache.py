"""What a slow start may keep for the next one: compiled networks, and which library was fastest.

Off unless ``$CCLSEG_CACHE`` names a folder, because it writes files and runs what it reads. The
folder must belong to the user, and nobody else may write to it. An entry is named after everything
that it depends on, so what fits no longer is not found; it stands under its name only when it is
whole, and its digest is compared when it is read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from pathlib import Path

from .errors import InputError
from .files import make_folder, write_bytes
from .machine import read_machine

_log = logging.getLogger(__name__)

CACHE_VARIABLE = "CCLSEG_CACHE"
"""Environment variable that names the folder."""

_DIGEST_BYTES = hashlib.sha256().digest_size


def is_wanted() -> bool:
    """Tells whether the user has named a folder."""
    return bool(os.environ.get(CACHE_VARIABLE))


def load_entry(*parts: object) -> bytes | None:
    """Returns what was kept under these parts on this machine, None where nothing was.

    Args:
        parts: All that the entry depends on: digests, versions, options.

    Raises:
        InputError: The folder is another user's, or open to others.
        SinkError: The folder cannot be made.
    """
    folder = _folder()
    if folder is None:
        return None
    path = folder / _name(parts)
    if not path.is_file():
        return None
    content = path.read_bytes()
    digest, entry = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(entry).digest() != digest:
        _log.warning("%s is damaged; made anew", path)
        return None
    return entry


def keep_entry(entry: bytes, *parts: object) -> None:
    """Keeps an entry for the next start, where the user wants that.

    Args:
        entry: The content.
        parts: As in :func:`load_entry`.

    Raises:
        InputError: As in :func:`load_entry`.
        SinkError: The entry cannot be written.
    """
    folder = _folder()
    if folder is not None:
        write_bytes(folder / _name(parts), hashlib.sha256(entry).digest() + entry)


def _folder() -> Path | None:
    chosen = os.environ.get(CACHE_VARIABLE)
    if not chosen:
        return None
    folder = Path(chosen)
    if not folder.is_dir():
        make_folder(folder).chmod(stat.S_IRWXU)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(
            f"${CACHE_VARIABLE} names {folder}, which others can write to; what is in it is run, "
            "so make it your own: chmod 700"
        )
    return folder


def _name(parts: tuple[object, ...]) -> str:
    machine = read_machine()
    everything = (machine.cpu, machine.instruction_sets, machine.system, *parts)
    return f"{hashlib.sha256(repr(everything).encode()).hexdigest()}.entry"
