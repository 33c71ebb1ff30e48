"""``cclseg export`` as a real process: its words, exit codes, and what an unlucky end leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from export_material import (
    FRAGILE_NODES,
    fragile_spec,
    labelled_by,
    write_fragile,
)

from cclseg.cli.app import run
from cclseg.files import file_sha256

_LIMITED = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2);"
    "from cclseg.cli import main; sys.exit(main())"
)


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    """A network that needs two of its three layers in floating point, and its dataset."""
    folder = tmp_path_factory.mktemp("fragile")
    path = write_fragile(folder / "fragile.onnx")
    return path, labelled_by(path, folder / "data").root


def _start(*words, before=()):
    environment = {**os.environ, "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*before, sys.executable, *map(str, words)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _run(*words, before=()):
    with _start(*words, before=before) as process:
        stdout, stderr = process.communicate(timeout=300)
    return process.returncode, stdout, stderr


def _words(fragile, out, *more):
    path, data = fragile
    return [
        *map(str, ("export", path, "--int8", "--calib", data, "-o", out, "--threads", 1, *more))
    ]


def _kept():
    return [word for node in FRAGILE_NODES for word in ("--keep-float", node)]


def _content(folder):
    return {path.name: file_sha256(path) for path in folder.iterdir()}


def test_good_files_are_listed_with_their_figures(fragile, tmp_path, capsys):
    assert run(_words(fragile, tmp_path / "out", *_kept())) == 0
    stdout, stderr = capsys.readouterr()
    row = next(line for line in stdout.splitlines() if line.startswith("fragile.int8.onnx"))
    assert row.split()[1:3] == ["onnxruntime", "1.0000"]
    assert f"{tmp_path / 'out' / 'parity.html'}" in stdout
    assert "measure ..." in stderr  # no terminal: a line per step instead of a bar


def test_a_rejected_file_is_the_first_word_and_the_exit_code(fragile, tmp_path, capsys):
    assert run(_words(fragile, tmp_path / "out")) == 1
    stdout = capsys.readouterr().out
    assert stdout.startswith("! fragile.int8.onnx is rejected: ")
    assert "try: Keep the layers that cost most in floating point" in stdout
    assert (tmp_path / "out" / "fragile.int8.onnx.rejected").exists()


def test_json_on_standard_output_is_json_alone(fragile, tmp_path, capsys):
    words = _words(fragile, tmp_path / "out", *_kept(), "--percentile", "99.9", "--json", "-")
    assert run(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "out" / "parity.json").read_text())
    assert report["calibration"]["method"] == "percentile"
    assert report["calibration"]["percentile"] == 99.9


def test_a_file_that_does_not_describe_itself_takes_a_spec(tmp_path, capsys):
    spec = tmp_path / "spec.json"
    spec.write_text(fragile_spec(description="told from outside").to_json())
    path = write_fragile(tmp_path / "bare.onnx", metadata={})
    words = ["export", str(path), "-o", str(tmp_path / "out")]
    assert run(words) == 1
    assert "does not say what its classes are" in capsys.readouterr().err
    assert run([*words, "--spec", str(spec)]) == 0
    assert (tmp_path / "out" / "fragile.onnx").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--target", "tensorflow"), "'tensorflow' is not one of"),
        (("--spec", "no.json"), "cannot take no.json"),
        (("--json", "nowhere/out.json"), "there is no folder"),
    ],
)
def test_wrong_usage_is_told_before_any_work(fragile, tmp_path, capsys, words, reason):
    assert run(_words(fragile, tmp_path / "out", *words)) == 2
    assert reason in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", ["search", "measure"])
def test_ctrl_c_leaves_what_was_there_before(fragile, tmp_path, step):
    out = tmp_path / "out"
    out.mkdir()
    (out / "fragile.int8.onnx").write_bytes(b"of an earlier export")
    before = _content(out)
    with _start("-m", "cclseg", *_words(fragile, out, "--auto")) as process:
        assert process.stderr is not None
        while process.stderr.readline() != f"{step} ...\n":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted"
    assert _content(out) == before


def test_a_page_that_cannot_be_written_whole_takes_the_models_with_it(fragile, tmp_path):
    """The limit lets the small models through and meets the page at the very end."""
    words = _words(fragile, tmp_path / "out", *_kept())
    code, _, stderr = _run("-c", _LIMITED, 20_000, *words)
    assert code == 1
    assert "error: cannot write" in stderr
    assert "parity.html" in stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a small disk")
def test_a_full_disk_leaves_nothing(fragile, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o size=24k tmpfs {disk} || exit 77; "
        '"$@"; code=$?; find "$0" -mindepth 1; exit $code'
    )
    before = ("unshare", "-rm", "sh", "-c", script, str(disk))
    code, stdout, stderr = _run("-m", "cclseg", *_words(fragile, disk, *_kept()), before=before)
    if code == 77 or "unshare" in stderr:
        pytest.skip(f"this machine does not let users mount: {stderr.strip()}")
    assert code == 1
    assert "No space left on device" in stderr
    assert stdout == ""  # nothing was printed, and find found nothing
