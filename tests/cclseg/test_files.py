"""Outputs: whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from cclseg.errors import SinkError
from cclseg.files import make_folder, replacing, write_bytes, write_json


def test_file_appears_with_its_final_name_only_when_whole(tmp_path):
    target = tmp_path / "mask.png"
    with replacing(target) as temporary:
        temporary.write_bytes(b"half")
        assert not target.exists()
    assert target.read_bytes() == b"half"
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]


def test_failure_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "mask.png"
    target.write_bytes(b"old")

    def write_and_fail():
        with replacing(target) as temporary:
            temporary.write_bytes(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]


def test_kill_in_the_middle_leaves_the_old_file(tmp_path):
    target = tmp_path / "mask.png"
    target.write_bytes(b"old")
    code = (
        "import sys, time, pathlib\n"
        "from cclseg.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'new')\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert target.read_bytes() == b"old"


def test_full_disk_is_a_sink_error_and_leaves_nothing(tmp_path):
    # A file-size limit of the process makes the kernel refuse the write as a full disk does.
    code = (
        "import sys, pathlib, resource, signal\n"
        "from cclseg.errors import SinkError\n"
        "from cclseg.files import write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_bytes(pathlib.Path(sys.argv[1]), bytes(5000))\n"
        "except SinkError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "mask.png")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot write" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_refuses_values_that_json_does_not_have(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "report.json", {"miou": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_folder_behind_a_file_is_a_sink_error(tmp_path):
    write_bytes(tmp_path / "file", b"")
    with pytest.raises(SinkError, match="cannot make the folder"):
        make_folder(tmp_path / "file" / "folder")
