"""What the doctor finds on this machine, and how the verb says it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from native_libraries import native_library

from cclseg import doctor
from cclseg.cli.app import run
from cclseg.doctor import diagnose
from cclseg.frame_kernels import kernel_names
from cclseg.machine import read_machine

if TYPE_CHECKING:
    from pathlib import Path

    from cclseg.doctor import Diagnosis, Finding

    from .conftest import Cclseg


def _finding(diagnosis: Diagnosis, name: str, section: str) -> Finding:
    (found,) = (f for f in diagnosis.sections[section] if f.name == name)
    return found


@pytest.fixture(scope="module")
def here() -> Diagnosis:
    """What is found on this machine."""
    return diagnose()


def test_installed_libraries_are_named_with_their_versions(here: Diagnosis) -> None:
    finding = _finding(here, "numpy", "libraries")
    assert finding.state == "ok"
    assert finding.detail.startswith(f"numpy {version('numpy')} ")


def test_a_video_writer_counts_when_its_file_can_be_read(here: Diagnosis) -> None:
    pytest.importorskip("cv2")
    finding = _finding(here, "MPEG-4 (mp4v)", "video")
    assert (finding.state, finding.detail) == ("ok", "written and read back")


def test_backends_run_the_bundled_model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(doctor, "bundled_models", lambda: {"tiny": tiny_model})
    diagnosis = diagnose()
    assert _finding(diagnosis, "onnxruntime", "backends").detail == "ran tiny on cpu"
    assert diagnosis.usable
    assert diagnosis.verdict.startswith("ready: the bundled model runs on onnxruntime")
    assert len(_finding(diagnosis, "tiny", "bundled models").detail.split("sha256 ")[1]) == 64


def test_a_damaged_model_is_a_failure_of_every_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no model")
    monkeypatch.setattr(doctor, "bundled_models", lambda: {"damaged": damaged})
    diagnosis = diagnose()
    finding = _finding(diagnosis, "onnxruntime", "backends")
    assert finding.state == "failed"
    assert "damaged.onnx" in finding.detail
    assert not diagnosis.usable
    assert diagnosis.verdict.startswith("not ready: no backend can run the bundled model")


def test_the_form_that_prepares_frames_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    library = native_library("onnxruntime")
    monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(library.parent))
    monkeypatch.delenv("CCLSEG_FRAME_KERNEL", raising=False)
    best = kernel_names(library)[0]
    finding = doctor._look_at_frame_kernel()
    assert (finding.state, finding.detail) == ("ok", f"compiled for {best}: {library}")
    monkeypatch.setenv("CCLSEG_FRAME_KERNEL", "opencv")
    finding = doctor._look_at_frame_kernel()
    assert (finding.state, finding.advice) == ("absent", "unset CCLSEG_FRAME_KERNEL")
    monkeypatch.setenv("CCLSEG_FRAME_KERNEL", "avx1024")
    diagnosis = diagnose()
    assert _finding(diagnosis, "preparation and classes", doctor.FRAMES).state == "failed"
    assert not diagnosis.usable


def test_a_compiled_correlation_is_found_and_its_absence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(tmp_path))
    finding = _finding(diagnose(), "onnxruntime", "compiled correlation")
    assert (finding.state, finding.advice) == ("absent", "cclseg ops build")
    library = native_library("onnxruntime")
    monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(library.parent))
    finding = _finding(diagnose(), "onnxruntime", "compiled correlation")
    assert (finding.state, finding.detail) == ("untried", f"built here: {library}")


def test_the_diagnosis_is_plain_json(here: Diagnosis) -> None:
    content = json.loads(json.dumps(here.to_dict(), allow_nan=False))
    assert content["verdict"] == here.verdict
    assert set(content["sections"]) == set(here.sections)


def test_codecs_that_complain_do_not_write_to_the_terminal() -> None:
    pytest.importorskip("cv2")
    code = "from cclseg.doctor import _try_video; print(len(list(_try_video())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "4\n"
    assert done.stderr == ""


def test_the_verb_ends_with_a_verdict_and_writes_json_beside_it(
    cclseg: Cclseg, tmp_path: Path
) -> None:
    result = cclseg("doctor", "--json", str(tmp_path / "doctor.json"))
    verdict = result.stdout.splitlines()[-1]
    assert verdict.startswith("ready: " if result.returncode == 0 else "not ready: ")
    assert read_machine().cpu in result.stdout
    assert result.stderr == ""
    content = json.loads((tmp_path / "doctor.json").read_text())
    assert content["verdict"] == verdict
    assert content["machine"]["cores"] == read_machine().cores


def test_a_place_for_json_that_is_not_there_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--json", str(tmp_path / "no" / "doctor.json")]) == 2
    assert f"there is no folder {tmp_path / 'no'}; make it first" in capsys.readouterr().err
