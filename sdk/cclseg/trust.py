"""Decides which models this device loads.

Without pinned keys every model is loaded, and of engines those that were built here. A device pins
keys by public keys (``*.pem``) in a folder; from then on it loads only what one of them signed, the
models of the package and engines that it built itself.

What is checked is what is loaded: the files are copied to a folder that only this user can enter,
hashed on the way, and the libraries get the copy. Whatever happens to the originals meanwhile, or
between two reads of a library, changes nothing. Files that need no check are loaded where they are.

:class:`~cclseg.Segmenter` and :func:`~cclseg.backends.choose.open_backend` ask here; ``open`` of a
backend itself loads whatever it is given. A signature does not expire: an older model with the
same name, signed with the same key, is as good as the present one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .built_engines import ENGINE_SUFFIXES, was_built_here
from .engine_record import read_record, rebuild_command
from .errors import CclsegError, InputError, SinkError, UntrustedModelError
from .files import file_sha256
from .model_files import companions, signature_of
from .models import bundled_digests

if TYPE_CHECKING:
    from .signature import PublicKey, SignedFiles

_log = logging.getLogger(__name__)

KEYS_VARIABLE = "CCLSEG_TRUSTED_KEYS"
"""Environment variable that names the folder of pinned keys, or one such key."""

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class PinnedKeys:
    """The keys that this device trusts; at least one.

    Attributes:
        folder: Where they stand, a folder or a lone PEM file.
        files: The PEM files.
    """

    folder: Path
    files: tuple[Path, ...]

    def load(self) -> tuple[PublicKey, ...]:
        """Reads the keys.

        Raises:
            InputError: A file is no public key.
            MissingDependencyError: The library that checks signatures is not installed.
        """
        from .signature import load_public_key

        return tuple(load_public_key(path) for path in self.files)


def keys_folder() -> Path:
    """Returns where pinned keys are looked for.

    That is ``$CCLSEG_TRUSTED_KEYS``, a folder or a PEM file, else ``cclseg/trusted_keys`` in the
    user's folder of settings.
    """
    if chosen := os.environ.get(KEYS_VARIABLE):
        return Path(chosen)
    settings = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(settings) / "cclseg" / "trusted_keys"


def pinned_keys() -> PinnedKeys | None:
    """Returns the keys that this device trusts, None where it was given none.

    A folder that was named or made but holds no key is an error, not consent to every model.

    Raises:
        InputError: The folder is absent though the environment names it, holds no key, or may be
            written to by everybody.
    """
    folder = keys_folder()
    try:
        is_key = stat.S_ISREG(folder.stat().st_mode)
        files = (folder,) if is_key else tuple(sorted(folder.glob("*.pem")))
        open_to_all = [path for path in (folder, *files) if path.stat().st_mode & stat.S_IWOTH]
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.environ.get(KEYS_VARIABLE):
            return None
        raise InputError(
            f"cannot read the trusted keys in {folder}: {error.strerror}; correct {KEYS_VARIABLE} "
            "or the folder's rights"
        ) from error
    if not files:
        raise InputError(
            f"the folder of trusted keys {folder} holds no public key (*.pem), so no model can be "
            "checked; put one there, or remove the folder to load every model"
        )
    if open_to_all:
        raise InputError(
            f"everybody may write to {open_to_all[0]}, so its keys prove nothing; run: chmod o-w "
            f"{open_to_all[0]}"
        )
    return PinnedKeys(folder, files)


@contextmanager
def vetted(model: Path) -> Iterator[Path]:
    """Yields the path from which a model may be loaded, within the block.

    Args:
        model: The model file.

    Raises:
        UntrustedModelError: The model is unsigned, altered or signed with another key, and this
            device has pinned keys; or it is an engine from elsewhere.
        EngineMismatchError: It is an engine from elsewhere that does not say what it is.
        InputError: A file or the pinned keys cannot be read.
        BackendError: An ONNX file is damaged, or takes weights from outside its folder.
        SinkError: There is no room for the copy.
    """
    pinned = pinned_keys()
    if pinned is None and model.suffix.lower() not in ENGINE_SUFFIXES:
        yield model
        return
    with TemporaryDirectory(prefix="cclseg-") as folder:
        digests = _private_copies(model, Path(folder))
        copy = Path(folder) / model.name
        try:
            _check(model, copy, digests, pinned)
            yield copy
        except CclsegError as error:
            if str(copy) not in str(error):
                raise
            # Who reads the message knows the model and has never seen the copy.
            raise type(error)(str(error).replace(str(copy), str(model))) from error


def _private_copies(model: Path, folder: Path) -> dict[str, str]:
    """Copies a model with its companions, and returns the SHA-256 of each by relative name.

    Which companions there are is read from the copy: nobody can change that afterwards.
    """
    copy = folder / model.name
    digests = {model.name: _copy(model, copy)}
    for path in companions(copy, folder=model.parent):
        name = path.relative_to(model.parent)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        digests[name.as_posix()] = _copy(path, folder / name)
    return digests


def _copy(source: Path, target: Path) -> str:
    """Copies a file and returns the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    try:
        reader = source.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}; check the path") from error
    try:
        with reader, target.open("wb") as writer:
            while piece := reader.read(_PIECE):
                digest.update(piece)
                writer.write(piece)
    except OSError as error:
        raise SinkError(
            f"cannot copy {source} to {target.parent} for checking: {error.strerror}; free space "
            "there, or set TMPDIR to another place"
        ) from error
    return digest.hexdigest()


def _check(model: Path, copy: Path, digests: Mapping[str, str], pinned: PinnedKeys | None) -> None:
    """Refuses a model that this device has no reason to trust.

    Args:
        model: Where it came from.
        copy: Where the bytes in question are.
        digests: SHA-256 of its files by name relative to its folder.
        pinned: The keys that this device trusts.
    """
    is_engine = model.suffix.lower() in ENGINE_SUFFIXES
    if list(digests.values()) == [digests[model.name]] and digests[model.name] in bundled_digests():
        _log.info("%s comes with the package", model)
    elif is_engine and was_built_here(copy):
        _log.info("%s was built on this device", model)
    elif (signature := find_signature(model)) is not None and pinned is not None:
        signed = check_model(model, signature, pinned.load(), digests=digests)
        _log.info("%s is signed with the key %s", model, signed.key.path.name)
    elif is_engine:
        raise UntrustedModelError(_engine_reason(model, copy))
    else:
        assert pinned is not None
        raise UntrustedModelError(_reason(model, pinned))


def find_signature(model: Path) -> Path | None:
    """Returns the signature that stands beside a model, None where there is none.

    That is ``NAME.sig``, else ``model.sig``, under which others sign a folder.
    """
    places = (signature_of(model), model.with_name("model.sig"))
    return next((path for path in places if path.is_file()), None)


def check_model(
    model: Path,
    signature: Path,
    keys: Sequence[PublicKey],
    *,
    digests: Mapping[str, str] | None = None,
) -> SignedFiles:
    """Checks that a model, companions included, is what one of the keys signed.

    Args:
        model: The model file.
        signature: Its signature, in the folder that its names are relative to.
        keys: The keys to accept.
        digests: SHA-256 of the model's files by name; None to read the files as they stand.

    Raises:
        UntrustedModelError: A file was altered or is not covered, or no key fits.
        InputError: A file cannot be read.
    """
    from .signature import check_signature

    if digests is None:
        files = (model, *companions(model))
        digests = {file.relative_to(model.parent).as_posix(): file_sha256(file) for file in files}
    signed = check_signature(signature, keys)
    for name, digest in digests.items():
        if name not in signed.digests:
            raise UntrustedModelError(
                f"{model.parent / name} is not among the files that {signature} covers: "
                f"{', '.join(signed.digests)}; give the file its former name or sign again"
            )
        if signed.digests[name] != digest:
            raise UntrustedModelError(
                f"{model.parent / name} was altered after it was signed: its SHA-256 is "
                f"{digest[:12]}..., {signature} says {signed.digests[name][:12]}...; copy the "
                "model again from where it was signed"
            )
    return signed


def _reason(model: Path, pinned: PinnedKeys) -> str:
    return (
        f"{model} is not signed ({signature_of(model).name} is absent), and this device loads only "
        f"what a key in {pinned.folder} signed; sign it: cclseg sign {model.name} --key private.pem"
    )


def _engine_reason(model: Path, copy: Path) -> str:
    """Says where an engine came from, as far as its sidecar is to be believed."""
    record = read_record(copy)
    where = f"on '{record.device}' " if record.device else ""
    return (
        f"{model} was not built on this device, and an engine can do whatever its maker wants; its "
        f"sidecar says that it was built {where}with {record.library} {record.library_version}. "
        f"Build it here: {rebuild_command(model, record)}; or sign it (cclseg sign {model.name} "
        f"--key private.pem) and put the public key into {keys_folder()}"
    )
