"""The program as a real process, and a package that plugs verbs into it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
from networks import brightest_band_spec, write_brightest_band

_VERBS = '''
import logging, time, click
from cclseg.errors import InputError

@click.command()
def refuse():
    """Meet an error of the SDK."""
    raise InputError("got 4 bands, the model takes 3; choose them")

@click.command()
@click.option("--colour", default="red")
def crash(colour):
    """Meet a bug."""
    {}["no such key"]

@click.command()
def need():
    """Need a library that is not there."""
    import a_library.part

@click.command()
def wait():
    """Work for a minute."""
    click.echo("working")
    time.sleep(60)

@click.command()
def flood():
    """Write more than a pipe holds."""
    for _ in range(100_000):
        click.echo("a line of output")

@click.command()
@click.pass_context
def half(ctx):
    """Do half of the work."""
    ctx.exit(1)

@click.command()
def talk():
    """Say something on every level."""
    for name in ("cclseg", "library"):
        log = logging.getLogger(name)
        log.debug("%s at debug", name)
        log.info("%s at info", name)
        log.warning("%s at warning", name)
'''

_ENTRY_POINTS = """
[cclseg.commands]
refuse = plugged_in_verbs:refuse
crash = plugged_in_verbs:crash
need = plugged_in_verbs:need
wait = plugged_in_verbs:wait
flood = plugged_in_verbs:flood
half = plugged_in_verbs:half
talk = plugged_in_verbs:talk
absent = no_such_module:absent
inspect = plugged_in_verbs:crash
"""


@pytest.fixture(scope="session")
def plug_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installed package that offers verbs of its own."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "plugged_in_verbs.py").write_text(_VERBS)
    about = folder / "plugged_in_verbs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in-verbs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(_ENTRY_POINTS)
    return folder


class Start(Protocol):
    def __call__(self, *arguments: str) -> subprocess.Popen[str]: ...


class Cclseg(Protocol):
    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def start(plug_in: Path) -> Start:
    """Starts the program, the verbs of the package among its own."""

    def start_process(*arguments: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "cclseg", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(plug_in), "COLUMNS": "100"}
        return subprocess.Popen(
            words, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return start_process


@pytest.fixture
def cclseg(start: Start) -> Cclseg:
    """Runs the program to its end."""

    def run_process(*arguments: str) -> subprocess.CompletedProcess[str]:
        with start(*arguments) as process:
            stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return run_process


@pytest.fixture
def foreign_model(tmp_path: Path) -> Path:
    """An ONNX network of three classes that does not describe itself."""
    return write_brightest_band(tmp_path / "foreign.onnx", metadata={})


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """The same network with a spec."""
    spec = brightest_band_spec(parity={"miou_drop": 0.25})
    return write_brightest_band(tmp_path / "tiny.onnx", spec)
