"""The page about operation keeps its word: its snippet runs, its commands and links are true."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from cclseg.cli import app as program
from cclseg.models import bundled_models
from cclseg.operation.health import HEALTHY, State

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "operation.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_snippet_runs(tmp_path):
    pytest.importorskip("aiohttp")
    if "ccl-lite0" not in bundled_models():
        pytest.skip("the model 'ccl-lite0' is not bundled in this checkout")
    (snippet,) = blocks("python")
    words = [sys.executable, "-c", snippet]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.match(r"http://127\.0\.0\.1:\d+/ \{'building': ", done.stdout)


def test_the_commands_parse(tmp_path):
    lines = [
        shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()
    ]
    commands = [words[1:] for words in lines if words[0] == "cclseg"]
    assert commands
    for verb, *rest in commands:
        with program.app.make_context("cclseg", [verb], resilient_parsing=True) as context:
            command = program.app.get_command(context, verb)
        there = [word.replace("/run/cclseg", str(tmp_path)) for word in rest]
        assert command.make_context(verb, there).params


def test_the_files_that_it_names_exist():
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    for installed in re.findall(r"\bdeploy/[\w.]+\b", PAGE):
        assert (ROOT / installed).exists() or "*" in installed


def test_the_table_of_states_is_complete():
    rows = re.findall(r"^\| (`\w+`.*?) \|.*\| (yes|no) \|$", PAGE, re.MULTILINE)
    stated = {state: well for names, well in rows for state in re.findall(r"`(\w+)`", names)}
    assert set(stated) == set(get_args(State))
    assert {state for state, well in stated.items() if well == "yes"} == HEALTHY
