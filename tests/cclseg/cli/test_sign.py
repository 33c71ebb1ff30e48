"""The verb sign, and what inspect and doctor say of signatures and keys."""

from __future__ import annotations

import json
import shutil
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from cclseg.cli.app import run
from cclseg.signing import new_key
from cclseg.trust import keys_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without settings of his own, in a folder of his own."""
    monkeypatch.delenv("CCLSEG_TRUSTED_KEYS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)


def test_a_model_is_signed_and_checked_in_two_commands(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sign", "tiny.onnx", "--new-key", "keys"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "keys/private.pem", "keys/public.pem", "tiny.onnx.sig",
    ]  # fmt: skip
    assert stat.S_IMODE((tmp_path / "keys" / "private.pem").stat().st_mode) == 0o600
    assert run(["inspect", "tiny.onnx", "--verify", "--public-key", "keys/public.pem"]) == 0
    assert "valid: tiny.onnx.sig, covers tiny.onnx" in capsys.readouterr().out


def test_an_altered_model_is_exit_code_1_in_one_line(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sign", "tiny.onnx", "--new-key", "keys"]) == 0
    tiny_model.write_bytes(tiny_model.read_bytes().replace(b"redest", b"rudest"))
    capsys.readouterr()
    assert run(["inspect", "tiny.onnx", "--verify", "--public-key", "keys/public.pem"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "tiny.onnx was altered after it was signed" in err
    assert err.count("\n") == 1


def test_json_says_who_signed_what(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sign", "tiny.onnx", "--new-key", "keys", "-o", "given.sig"]) == 0
    capsys.readouterr()
    words = ["--verify", "--public-key", "keys/public.pem", "--signature", "given.sig"]
    assert run(["inspect", "tiny.onnx", *words, "--json", "-"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["signature"]["files"] == {"tiny.onnx": content["sha256"]}
    assert run(["inspect", "tiny.onnx", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["signature"] is None


def test_pinned_keys_need_no_option(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sign", "tiny.onnx", "--new-key", "keys"]) == 0
    assert run(["inspect", "tiny.onnx", "--verify"]) == 1
    assert "give one with --public-key FILE, or put it into" in capsys.readouterr().err
    shutil.copy("keys/public.pem", _made(keys_folder()))
    assert run(["inspect", "tiny.onnx", "--verify"]) == 0


def test_an_unsigned_model_says_which_file_is_missing(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sign", "--new-key", "keys"]) == 0
    assert run(["inspect", "tiny.onnx", "--verify", "--public-key", "keys/public.pem"]) == 1
    assert "tiny.onnx.sig is absent" in capsys.readouterr().err


def test_predict_refuses_what_the_device_does_not_trust(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sign", "--new-key", "keys"]) == 0
    shutil.copy("keys/public.pem", _made(keys_folder()))
    assert run(["predict", "virtual:frames=1", "-m", "tiny.onnx"]) == 1
    assert "tiny.onnx is not signed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sign", "tiny.onnx"], "give a key with --key FILE, or make one"),
        (["sign", "tiny.onnx", "--key", "a.pem", "--new-key", "keys"], "give a key with --key"),
        (["sign", "--key", "a.pem"], "Missing argument 'MODEL'"),
        (["inspect", "tiny.onnx", "--public-key", "a.pem"], "are for --verify; add it"),
    ],
)
def test_wrong_usage_starts_nothing(
    tiny_model: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tiny_model.parent.iterdir()] == ["tiny.onnx"]


def test_no_key_is_made_for_a_model_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sign", "absent.onnx", "--new-key", "keys"]) == 1
    assert "no such file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_password_of_a_key_comes_from_the_environment(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    private, _ = new_key(tiny_model.parent / "keys")
    key = serialization.load_pem_private_key(private.read_bytes(), None)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"sesame"),
        )
    )
    monkeypatch.setenv("CCLSEG_KEY_PASSWORD", "barley")
    assert run(["sign", "tiny.onnx", "--key", str(private)]) == 1
    monkeypatch.setenv("CCLSEG_KEY_PASSWORD", "sesame")
    assert run(["sign", "tiny.onnx", "--key", str(private)]) == 0
    assert run(["inspect", "tiny.onnx", "--verify", "--public-key", "keys/public.pem"]) == 0


class TestDoctor:
    def test_it_says_that_no_keys_are_pinned_and_where_they_go(self) -> None:
        from cclseg.doctor import TRUST, diagnose

        (finding,) = diagnose().sections[TRUST]
        assert finding.state == "absent"
        assert str(keys_folder()) in finding.advice

    def test_it_names_pinned_keys(self, tmp_path: Path) -> None:
        from cclseg.doctor import TRUST, diagnose

        shutil.copy(new_key(tmp_path / "keys")[1], _made(keys_folder()) / "office.pem")
        diagnosis = diagnose()
        assert diagnosis.usable
        (finding,) = diagnosis.sections[TRUST]
        assert finding.state == "ok"
        assert finding.detail.startswith("office.pem (")

    def test_keys_that_cannot_be_used_make_the_device_unusable(self) -> None:
        from cclseg.doctor import TRUST, diagnose

        (_made(keys_folder()) / "broken.pem").write_text("no key")
        diagnosis = diagnose()
        assert not diagnosis.usable
        assert "keys that this device trusts cannot be used" in diagnosis.verdict
        assert diagnosis.sections[TRUST][0].state == "failed"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
