"""Checks signatures of models in the format of OpenSSF Model Signing (OMS), made with a key file.

A signature is a Sigstore bundle: JSON around a DSSE envelope around an in-toto statement, which
lists the model's files with their SHA-256. What is checked here is written down in
github.com/ossf/model-signing-spec and github.com/secure-systems-lab/dsse. The reference package
``model-signing`` makes the signatures (:mod:`cclseg.signing`); a device checks them here, because
that package hashes files by their path, so what it saw may not be what is loaded afterwards, and
because it brings thirty others that a device has no use for, network clients among them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError, MissingDependencyError, UntrustedModelError

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "cryptography", extra="trust", purpose="checking signatures of models"
    ) from error

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512(),
}  # fmt: skip
_LARGEST_SIGNATURE = 4 << 20
"""Bytes; the signature of a model of ten files has three thousand."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are checked with.

    Attributes:
        path: The PEM file.
        fingerprint: SHA-256 of the key in PEM form, as signatures name it.
        key: The key itself.
    """

    path: Path
    fingerprint: str
    key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class SignedFiles:
    """What a valid signature says.

    Attributes:
        key: The key that fits.
        digests: SHA-256 of each signed file, by its name relative to the signature's folder.
    """

    key: PublicKey
    digests: Mapping[str, str]


def load_public_key(path: Path) -> PublicKey:
    """Reads a public key.

    Raises:
        InputError: The file cannot be read or holds no public key on a NIST curve in PEM form.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the key {path}: {error.strerror}; check the path") from error
    if b"PRIVATE KEY" in data:
        raise InputError(
            f"{path} is a private key; expected the public one, and keep this one where models "
            "are signed"
        )
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path} is no public key in PEM form ({error})") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise InputError(
            f"{path} holds a key of another kind; expected an elliptic curve: {', '.join(_HASHES)} "
            "(cclseg sign --new-key makes one)"
        )
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PublicKey(path, hashlib.sha256(pem).hexdigest(), key)


def check_signature(path: Path, keys: Sequence[PublicKey]) -> SignedFiles:
    """Checks that one of the keys made a signature, and returns what it signed.

    Raises:
        InputError: The signature cannot be read.
        UntrustedModelError: It is damaged, of another kind, or fits none of the keys.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_SIGNATURE + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    try:
        if len(data) > _LARGEST_SIGNATURE:
            raise _UnfitError(f"more than {_LARGEST_SIGNATURE >> 20} MiB")
        payload, signature = _envelope(data)
        key = next((key for key in keys if _fits(key, payload, signature)), None)
        if key is None:
            known = ", ".join(f"{key.path.name} ({key.fingerprint[:12]})" for key in keys)
            raise UntrustedModelError(
                f"{path} was made with another key, or changed since; expected one of: {known}. "
                "Do not use the model before its sender has told you the key"
            )
        return SignedFiles(key, _signed_digests(payload))
    except _UnfitError as error:
        raise UntrustedModelError(
            f"{path} is no signature made with a key in the format of OpenSSF Model Signing 1.0 "
            f"({error}); sign the model again: cclseg sign MODEL --key private.pem"
        ) from error


class _UnfitError(Exception):
    """The file is not what it should be."""


def _envelope(data: bytes) -> tuple[bytes, bytes]:
    """Returns what was signed, and the signature itself."""
    try:
        bundle = json.loads(data)
        kind, envelope = bundle["mediaType"], bundle["dsseEnvelope"]
        payload_kind, signatures = envelope["payloadType"], envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(signatures[0]["sig"], validate=True)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, binascii.Error) as error:
        raise _UnfitError(f"{type(error).__name__}: {error}") from error
    for got, expected in ((kind, _BUNDLE), (payload_kind, _PAYLOAD), (len(signatures), 1)):
        if got != expected:
            raise _UnfitError(f"got {got!r}, expected {expected!r}")
    return payload, signature


def _fits(key: PublicKey, payload: bytes, signature: bytes) -> bool:
    # DSSE's pre-authentication encoding: the type is signed along, lengths leave no ambiguity.
    signed = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)
    try:
        key.key.verify(signature, signed, ec.ECDSA(_HASHES[key.key.curve.name]))
    except InvalidSignature:
        return False
    return True


def _signed_digests(payload: bytes) -> dict[str, str]:
    """Reads the statement of a signature that fits, so by who holds the key."""
    try:
        statement = json.loads(payload)
        predicate, subjects = statement["predicate"], statement["subject"]
        (subject,) = subjects
        method = predicate["serialization"]["method"], predicate["serialization"]["hash_type"]
        resources = [_resource(entry) for entry in predicate["resources"]]
        kinds = statement["_type"], statement["predicateType"]
        name, root = subject["name"], subject["digest"]["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _UnfitError(f"{type(error).__name__}: {error}") from error
    for got, expected in ((kinds, (_STATEMENT, _PREDICATE)), (method, ("files", "sha256"))):
        if got != expected:
            raise _UnfitError(f"got {got}, expected {expected}")
    together = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in resources))
    if together.hexdigest() != root:
        raise _UnfitError("the files do not add up to the digest of the whole")
    digests = dict(resources)
    if len(digests) != len(resources) or not digests:
        raise _UnfitError("a file stands twice, or there is none")
    # A model that was signed as a lone file, not as a folder, goes by the name of the whole.
    return {name: digests["."]} if list(digests) == ["."] else digests


def _resource(entry: Any) -> tuple[str, str]:  # noqa: ANN401 - any JSON value
    name, digest = entry["name"], entry["digest"]
    if not isinstance(name, str) or len(bytes.fromhex(digest)) != hashlib.sha256().digest_size:
        raise ValueError(f"{name!r} with the digest {digest!r}")
    return name, digest.lower()
