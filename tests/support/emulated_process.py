"""Runs tests on the emulated driver, in a process of their own: a loaded driver stays loaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_emulation import has_compiler
from emulated_device import driver_folder

HERE = Path(__file__).parent


def run_suite(
    suite: Path, *, folders: tuple[Path, ...] = (), skipped: int = 0, **environment: str
) -> None:
    """Runs a file of tests, of which no more than so many may be skipped."""
    if not has_compiler():
        pytest.skip("no g++ to compile the emulated driver with")
    paths = os.pathsep.join(map(str, (*folders, HERE)))
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", suite],
        env=os.environ
        | {"LD_LIBRARY_PATH": str(driver_folder()), "PYTHONPATH": paths}
        | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = re.search(r"(\d+) skipped", answer.stdout)
    assert (int(found[1]) if found else 0) == skipped, answer.stdout
