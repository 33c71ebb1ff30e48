"""Signing and checking: both directions with the reference package, damage, and no network."""

import base64
import json
import os
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import write_graph
from onnx import TensorProto, helper

from cclseg.errors import BackendError, InputError, SinkError, UntrustedModelError
from cclseg.signature import check_signature, load_public_key
from cclseg.signing import is_encrypted, new_key, sign_model
from cclseg.trust import check_model

CURVES = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The paths of a private and a public key."""
    return new_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def model(network, tmp_path):
    """A model in a folder of its own."""
    (tmp_path / "models").mkdir()
    return shutil.copy(network, tmp_path / "models" / "net.onnx")


@pytest.fixture
def two_files(tmp_path):
    """A model that keeps its weights in a file beside it."""
    (tmp_path / "two.bin").write_bytes(np.eye(3, dtype=np.float32).tobytes())
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(3, 3, 1, 1))
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="two.bin")
    return write_graph(
        tmp_path / "two.onnx",
        [helper.make_node("Conv", ["images", "w"], ["logits"])],
        inputs={"images": ["n", 3, 8, 8]},
        outputs={"logits": ["n", 3, 8, 8]},
        weights=[weight],
    )


def write_key(path, key, password=None):
    """Writes a private key, and the public one beside it; returns both paths."""
    secret = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    pem = serialization.Encoding.PEM
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, secret))
    public = path.with_suffix(".pub.pem")
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, info))
    return path, public


def reference(*words):
    """Runs the program of the reference package."""
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


class TestSigning:
    def test_a_signed_model_is_accepted(self, model, pair):
        signed = sign_model(model, pair[0])
        assert signed.signature == model.with_name("net.onnx.sig")
        assert signed.files == (model,)
        found = check_model(model, signed.signature, [load_public_key(pair[1])])
        assert list(found.digests) == ["net.onnx"]

    @pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
    def test_every_curve_of_the_format(self, model, tmp_path, curve):
        private, public = write_key(tmp_path / "key.pem", ec.generate_private_key(curve))
        signature = sign_model(model, private).signature
        assert check_model(model, signature, [load_public_key(public)])

    def test_the_reference_package_accepts_what_is_signed_here(self, two_files, pair):
        signature = sign_model(two_files, pair[0]).signature
        words = ("verify", "key", two_files.parent, "--signature", signature)
        keys = ("--public_key", pair[1], "--ignore_unsigned_files")
        assert reference(*words, *keys).returncode == 0
        (two_files.parent / "two.bin").write_bytes(bytes(36))
        assert "Hash mismatch" in str(reference(*words, *keys))

    @pytest.mark.parametrize("signed", ["folder", "file"])
    def test_what_the_reference_package_signs_is_accepted_here(self, model, pair, signed):
        signature = model.with_name("model.sig")
        subject = model.parent if signed == "folder" else model
        done = reference("sign", "key", subject, "--signature", signature, "--private_key", pair[0])
        assert done.returncode == 0, done.stderr
        keys = [load_public_key(pair[1])]
        assert check_model(model, signature, keys)
        model.write_bytes(model.read_bytes().replace(b"redest", b"hidest"))
        with pytest.raises(UntrustedModelError, match="altered after it was signed"):
            check_model(model, signature, keys)

    def test_a_key_with_a_password(self, model, tmp_path):
        key = ec.generate_private_key(ec.SECP256R1())
        private, public = write_key(tmp_path / "key.pem", key, b"open sesame")
        assert is_encrypted(private)
        signature = sign_model(model, private, password="open sesame").signature
        assert check_model(model, signature, [load_public_key(public)])
        for wrong in (None, "open barley"):
            with pytest.raises(InputError, match="that this password opens"):
                sign_model(model, private, password=wrong)

    def test_files_that_belong_to_a_model_are_signed_with_it(self, two_files, pair):
        signed = sign_model(two_files, pair[0])
        assert [file.name for file in signed.files] == ["two.onnx", "two.bin"]
        keys = [load_public_key(pair[1])]
        assert check_model(two_files, signed.signature, keys)
        (two_files.parent / "two.bin").write_bytes(np.ones(9, np.float32).tobytes())
        with pytest.raises(UntrustedModelError, match=r"two\.bin was altered"):
            check_model(two_files, signed.signature, keys)

    def test_a_model_with_foreign_weights_is_not_signed(self, two_files, pair):
        two_files.write_bytes(two_files.read_bytes().replace(b"two.bin", b"../a.ow"))
        with pytest.raises(BackendError, match="its own folder"):
            sign_model(two_files, pair[0])
        assert not list(two_files.parent.glob("*.sig"))

    def test_a_model_reached_by_a_link(self, model, pair):
        latest = model.with_name("latest.onnx")
        latest.symlink_to(model.name)
        signature = sign_model(latest, pair[0]).signature
        assert check_model(latest, signature, [load_public_key(pair[1])])

    def test_another_key_is_refused_by_name(self, model, pair, tmp_path):
        signature = sign_model(model, pair[0]).signature
        other = load_public_key(new_key(tmp_path / "other")[1])
        with pytest.raises(UntrustedModelError, match=rf"public\.pem \({other.fingerprint[:12]}"):
            check_model(model, signature, [other])
        assert check_model(model, signature, [other, load_public_key(pair[1])])

    def test_a_signature_is_not_one_for_another_model(self, model, pair):
        signature = sign_model(model, pair[0]).signature
        other = shutil.copy(model, model.with_name("other.onnx"))
        with pytest.raises(UntrustedModelError, match=r"covers: net\.onnx; give the file its"):
            check_model(other, signature, [load_public_key(pair[1])])


class TestKeys:
    def test_a_private_key_is_its_owners_alone(self, pair):
        assert stat.S_IMODE(pair[0].stat().st_mode) == 0o600
        assert load_public_key(pair[1]).fingerprint
        assert not is_encrypted(pair[0])

    def test_keys_are_never_overwritten(self, tmp_path):
        private, public = new_key(tmp_path)
        before = private.read_bytes()
        with pytest.raises(SinkError, match="would be lost"):
            new_key(tmp_path)
        private.rename(tmp_path / "elsewhere.pem")
        with pytest.raises(SinkError, match=public.name):
            new_key(tmp_path)
        assert (tmp_path / "elsewhere.pem").read_bytes() == before

    def test_keys_of_openssl_are_taken(self, model, tmp_path):
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        private, public = tmp_path / "a.pem", tmp_path / "a.pub.pem"
        make = ("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private)
        show = ("ec", "-in", private, "-pubout", "-out", public)
        for words in (make, show):
            subprocess.run(["openssl", *words], check=True, capture_output=True)
        signature = sign_model(model, private).signature
        assert check_model(model, signature, [load_public_key(public)])

    def test_the_wrong_half_is_named(self, model, pair):
        with pytest.raises(InputError, match="is a public key"):
            sign_model(model, pair[1])
        with pytest.raises(InputError, match="is a private key"):
            load_public_key(pair[0])

    def test_keys_of_other_kinds_say_how_to_make_one(self, model, tmp_path):
        private, public = write_key(tmp_path / "key.pem", ed25519.Ed25519PrivateKey.generate())
        with pytest.raises(InputError, match="cclseg sign --new-key"):
            sign_model(model, private)
        with pytest.raises(InputError, match="cclseg sign --new-key"):
            load_public_key(public)

    @pytest.mark.parametrize("content", [b"", b"text", b"-----BEGIN PUBLIC KEY-----\nAAAA\n"])
    def test_what_is_no_key_is_named(self, model, tmp_path, content):
        path = tmp_path / "key.pem"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"key\.pem is no public key"):
            load_public_key(path)
        path.write_bytes(content.replace(b"PUBLIC", b"PRIVATE"))
        with pytest.raises(InputError, match=r"key\.pem is no private key"):
            sign_model(model, path)

    def test_an_absent_key_is_named(self, model, tmp_path):
        with pytest.raises(InputError, match="No such file"):
            load_public_key(tmp_path / "a.pem")
        with pytest.raises(InputError, match="No such file"):
            sign_model(model, tmp_path / "a.pem")


class TestDamage:
    @pytest.fixture
    def signature(self, model, pair):
        return sign_model(model, pair[0]).signature

    @pytest.fixture
    def keys(self, pair):
        return [load_public_key(pair[1])]

    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(place=st.integers(0, 1 << 20), value=st.integers(1, 255))
    def test_a_changed_byte_changes_what_is_signed_for_nobody(self, signature, keys, place, value):
        whole = signature.read_bytes()
        expected = check_signature(signature, keys).digests
        changed = bytearray(whole)
        changed[place % len(whole)] ^= value
        copy = signature.with_name("changed.sig")
        copy.write_bytes(changed)
        try:
            found = check_signature(copy, keys)
        except UntrustedModelError:
            return
        assert found.digests == expected  # bytes outside of the envelope carry no meaning

    def test_a_signature_cut_off_anywhere_is_refused(self, signature, keys):
        whole = signature.read_bytes()
        for length in range(0, len(whole) - 1, 7):
            signature.write_bytes(whole[:length])
            with pytest.raises(UntrustedModelError):
                check_signature(signature, keys)

    def test_another_list_of_files_is_refused(self, signature, keys):
        bundle = json.loads(signature.read_text())
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"]).replace(b"net.onnx", b"bad.onnx")
        envelope["payload"] = base64.b64encode(payload).decode()
        signature.write_text(json.dumps(bundle))
        with pytest.raises(UntrustedModelError, match="made with another key, or changed"):
            check_signature(signature, keys)

    @pytest.mark.parametrize(
        "change",
        [
            {"payloadType": "text/plain"},
            {"signatures": []},
            {"payload": "%%%"},
            {"signatures": [{"sig": "AAAA"}, {"sig": "AAAA"}]},
        ],
    )
    def test_an_envelope_of_another_kind_is_refused(self, signature, keys, change):
        bundle = json.loads(signature.read_text())
        bundle["dsseEnvelope"].update(change)
        signature.write_text(json.dumps(bundle))
        with pytest.raises(UntrustedModelError, match="no signature made with a key"):
            check_signature(signature, keys)

    @pytest.mark.parametrize(
        "content",
        [b"", b"[]", b"null", b"[" * 100_000, b"1" * 5000, bytes(5 << 20)],
        ids=["empty", "list", "null", "deep", "number", "large"],
    )
    def test_what_is_no_bundle_is_refused(self, signature, keys, content):
        signature.write_bytes(content)
        with pytest.raises(UntrustedModelError, match="no signature made with a key"):
            check_signature(signature, keys)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('"sha256"', '"blake2b"'),
            ("signature/v1.0", "signature/v9.0"),
            ('"files"', '"shards"'),
            ('"name": "net.onnx"', '"name": 3'),
        ],
    )
    def test_a_statement_of_another_kind_is_refused_even_if_signed(
        self, signature, pair, keys, old, new
    ):
        """Only who holds the key can write one, so this is about versions to come."""
        bundle = json.loads(signature.read_text())
        text = base64.b64decode(bundle["dsseEnvelope"]["payload"]).decode()
        assert old in text
        signature.write_text(json.dumps(resigned(bundle, text.replace(old, new), pair[0])))
        with pytest.raises(UntrustedModelError, match="no signature made with a key"):
            check_signature(signature, keys)


def resigned(bundle, text, private):
    """Returns a bundle with another payload, signed by hand as the DSSE specification says."""
    from cryptography.hazmat.primitives import hashes

    key = serialization.load_pem_private_key(private.read_bytes(), None)
    kind, payload = b"application/vnd.in-toto+json", text.encode()
    signed = b" ".join([b"DSSEv1", b"%d" % len(kind), kind, b"%d" % len(payload), payload])
    signature = key.sign(signed, ec.ECDSA(hashes.SHA256()))
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    bundle["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(signature).decode()}]
    return bundle


_SIGN_AND_CHECK = """
import sys
from pathlib import Path
if sys.argv[1] == "watched":
    def refuse(event, arguments):
        if event.startswith("socket.") and event != "socket.__new__":
            raise AssertionError(f"{event} {arguments}")
    sys.addaudithook(refuse)
from cclseg.signature import load_public_key
from cclseg.signing import new_key, sign_model
from cclseg.trust import check_model
folder, model = Path(sys.argv[2]), Path(sys.argv[3])
private, public = new_key(folder)
signed = sign_model(model, private)
print(*check_model(model, signed.signature, [load_public_key(public)]).digests)
"""


def _fails(*words):
    return subprocess.run(words, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("how", ["watched", "cut off"])
def test_neither_signing_nor_checking_asks_a_network(model, tmp_path, how):
    words = [sys.executable, "-c", _SIGN_AND_CHECK, how, str(tmp_path / "keys"), str(model)]
    if how == "cut off":
        alone = ["unshare", "--map-root-user", "--net"]
        if shutil.which("unshare") is None or _fails(*alone, "true"):
            pytest.skip("this system gives no process a network of its own")
        words = [*alone, *words]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ, check=False)
    assert (done.returncode, done.stdout) == (0, "net.onnx\n"), done.stderr
