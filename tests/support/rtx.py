"""What tests of engine builds share: a skip, a program, a folder of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cclseg.tensorrt_library import find_module

REASON = "TensorRT for RTX is not installed (group test-trt)"
needs_rtx = pytest.mark.skipif(find_module("tensorrt-rtx") is None, reason=REASON)


class BuildProgram:
    """Runs ``cclseg build --target tensorrt-rtx`` with its temporary and state folders in one."""

    def __init__(self, folder):
        self.folder = folder
        self.temporary, self.state = folder / "temporary", folder / "state"
        self.temporary.mkdir()
        self.state.mkdir()

    def start(self, model, *words, **options):
        """Starts the program; its process is in a session of its own, as a terminal's is."""
        command = [
            sys.executable,
            "-m",
            "cclseg",
            "build",
            model,
            "--target",
            "tensorrt-rtx",
            *words,
        ]
        environment = os.environ | {
            "TMPDIR": str(self.temporary),
            "XDG_STATE_HOME": str(self.state),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }
        return subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, **options,
        )  # fmt: skip

    def run(self, model, *words, **options):
        """Runs the program to its end; returns exit code, standard output and error."""
        with self.start(model, *words, **options) as process:
            out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def report(self, model, *words):
        """Runs it and returns what ``--json`` says."""
        code, out, err = self.run(model, "--json", "-", *words)
        assert code == 0, err
        return json.loads(out)

    def workers(self):
        """Returns the building processes of this program that are alive."""
        processes = (path.name for path in Path("/proc").iterdir() if path.name.isdigit())
        return [pid for pid in map(int, processes) if self._is_own(pid)]

    def _is_own(self, pid):
        process = Path("/proc") / str(pid)
        try:
            words = (process / "cmdline").read_bytes()
            variables = (process / "environ").read_bytes()
        except OSError:  # it ended, or is another user's
            return False
        return b"engine.worker" in words and os.fsencode(self.temporary) in variables
