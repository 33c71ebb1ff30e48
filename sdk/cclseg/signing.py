"""Signs models in the format of OpenSSF Model Signing, with a key file and without a network."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError, MissingDependencyError, SinkError
from .files import make_folder, replacing, write_bytes
from .model_files import companions, signature_of

try:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from model_signing import hashing, manifest, signing
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "model_signing", extra="sign", purpose="signing models"
    ) from error

PRIVATE_KEY, PUBLIC_KEY = "private.pem", "public.pem"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed.

    Attributes:
        signature: The signature's file.
        files: The files that it covers, the model first.
    """

    signature: Path
    files: tuple[Path, ...]


def new_key(folder: Path) -> tuple[Path, Path]:
    """Makes a pair of keys on the curve P-256, which every verifier knows.

    Args:
        folder: Where ``private.pem``, readable by its owner alone, and ``public.pem`` are written.

    Returns:
        The paths of the private and the public key.

    Raises:
        SinkError: The folder cannot be written to, or holds keys already.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = make_folder(folder) / PRIVATE_KEY, folder / PUBLIC_KEY
    for path in (private, public):
        if path.exists():
            raise SinkError(
                f"{path} exists, and what it signed would be lost with it; choose another folder"
            )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
    except OSError as error:
        reason = error.strerror
        raise SinkError(f"cannot write {private}: {reason}; choose another place") from error
    write_bytes(
        public,
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )
    return private, public


def is_encrypted(key: Path) -> bool:
    """Says whether a private key needs a password.

    Raises:
        InputError: The file cannot be read.
    """
    return b"ENCRYPTED" in _read(key)


def sign_model(
    model: Path, key: Path, *, password: str | None = None, signature: Path | None = None
) -> Signed:
    """Signs a model together with the files that belong to it.

    The names in the signature are relative to the model's folder, so all of them may move together
    and none may be renamed.

    Args:
        model: The model file.
        key: A private key on a NIST curve, as PEM.
        password: Of the key, where it is encrypted.
        signature: Where to write; None for ``MODEL.sig`` beside the model.

    Raises:
        InputError: The key does not fit, or a file cannot be read.
        BackendError: An ONNX file is damaged, or takes weights from outside its folder.
        SinkError: The signature cannot be written.
    """
    _check_key(key, password)
    files = (model, *companions(model))
    out = signature or signature_of(model)
    # The package says str, and hands the password to a function that takes bytes alone
    # (model-signing 1.1.1, sign_ec_key.py).
    secret: Any = password.encode() if password else None
    signer = signing.Config()  # type: ignore[no-untyped-call]
    signer.use_elliptic_key_signer(private_key=key, password=secret)
    signer.set_hashing_config(_Selected(files))
    with replacing(out) as temporary:
        signer.sign(model.absolute().parent, temporary)
    return Signed(out, files)


class _Selected(hashing.Config):
    """Hashes chosen files of a folder where the package would take all of them."""

    def __init__(self, files: Iterable[Path]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._files = [file.absolute() for file in files]
        # A model may be reached by a link ("latest.onnx"); its companions were checked.
        self.set_allow_symlinks(self._files[0].is_symlink())

    def hash(
        self,
        model_path: hashing.PathLike,
        *,
        files_to_hash: Iterable[hashing.PathLike] | None = None,
    ) -> manifest.Manifest:
        return super().hash(model_path, files_to_hash=files_to_hash or self._files)


def _check_key(path: Path, password: str | None) -> None:
    data = _read(path)
    if b"PUBLIC KEY" in data:
        raise InputError(f"{path} is a public key; expected the private one to sign with")
    try:
        key = serialization.load_pem_private_key(data, password.encode() if password else None)
    except (ValueError, TypeError) as error:  # a wrong password is one, a missing one the other
        raise InputError(
            f"{path} is no private key in PEM form that this password opens ({error}); make a key "
            "with: cclseg sign --new-key DIR"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise InputError(
            f"{path} holds a key of another kind; expected an elliptic curve, {', '.join(_CURVES)};"
            " make one with: cclseg sign --new-key DIR"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the key {path}: {error.strerror}; check the path") from error
