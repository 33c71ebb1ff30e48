"""The README keeps its word: snippets run, commands parse, tables and links are true."""

from __future__ import annotations

import builtins
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from networks import brightest_band_spec, write_brightest_band

from cclseg import errors
from cclseg.cli import app as program
from cclseg.models import bundled_models

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PICTURE = "docs/result.jpg"
HEAVY_VERBS = ("train", "val", "export", "build", "verify", "demo")
SIGNING = ("sign", "--verify")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def _shell_lines() -> list[str]:
    return [line for block in _blocks("sh") for line in block.splitlines() if line.strip()]


def _commands() -> list[list[str]]:
    words = (shlex.split(line, comments=True) for line in _shell_lines())
    return [line[1:] for line in words if line[0] == "cclseg"]


def _first_cells(heading: str) -> list[str]:
    """The code in the first column of the first table under a heading."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [cell.split()[0] for cell in re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)]


@pytest.fixture
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the snippets name."""
    cv2 = pytest.importorskip("cv2")
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.jpg"):
        cv2.imwrite(name, noise)
    writer = cv2.VideoWriter("flight.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (120, 90))
    for _ in range(3):
        writer.write(noise)
    writer.release()
    spec = brightest_band_spec(tile_hw=(64, 64))
    write_brightest_band(tmp_path / "network.onnx", spec, metadata={})
    return tmp_path


def _need_bundled(text: str) -> None:
    for name in re.findall(r"ccl-\w+", text):
        if name not in bundled_models():
            pytest.skip(f"the model '{name}' is not bundled in this checkout")


def test_the_python_snippets_run(playground: Path) -> None:
    blocks = _blocks("python")
    assert len(blocks) >= 3
    _need_bundled("".join(blocks))
    subprocess.run([sys.executable, "-c", "\n".join(blocks)], check=True, cwd=playground)
    assert (playground / "mask.png").stat().st_size
    assert (playground / "overlay.jpg").stat().st_size


def test_the_snippet_for_a_foreign_network_runs(playground: Path) -> None:
    (snippet,) = (block for block in _blocks("python") if "ModelSpec" in block)
    first = "import cv2\nfrom cclseg import Segmenter\nframe = cv2.imread('photo.jpg')\n"
    words = [sys.executable, "-c", first + snippet]
    done = subprocess.run(words, check=True, cwd=playground, capture_output=True, text=True)
    assert done.stdout == "uint8\n"


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_the_commands_parse(command: list[str]) -> None:
    with program.app.make_context("cclseg", [*command], resilient_parsing=True) as context:
        verb = program.app.get_command(context, command[0])
    assert verb is not None
    assert verb.make_context(command[0], command[1:]).params


def _light_commands() -> Iterator[list[str]]:
    light = (words for words in _commands() if words[0] not in HEAVY_VERBS and "-m" not in words)
    light = (words for words in light if not words[-1].endswith(".engine"))
    return (words for words in light if not set(words) & set(SIGNING))


@pytest.mark.parametrize("command", list(_light_commands()), ids=" ".join)
def test_the_commands_run(command: list[str], playground: Path) -> None:
    if command[0] == "predict":
        _need_bundled("ccl-lite0")
    _need_bundled(" ".join(command))
    words = [sys.executable, "-m", "cclseg", *command]
    done = subprocess.run(words, cwd=playground, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if "-o" in command:
        assert (playground / command[command.index("-o") + 1]).exists()


def test_the_commands_about_trust_run_one_after_another(playground: Path) -> None:
    (block,) = (block for block in _blocks("sh") if "cclseg sign" in block)
    script = f'cclseg() {{ "{sys.executable}" -m cclseg "$@"; }}\n{block}'
    home = os.environ | {"HOME": str(playground)}
    home.pop("XDG_CONFIG_HOME", None)
    subprocess.run(["bash", "-ec", script], cwd=playground, env=home, check=True)
    pinned = playground / ".config" / "cclseg" / "trusted_keys" / "public.pem"
    assert pinned.read_bytes() == (playground / "keys" / "public.pem").read_bytes()


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {line.split()[1] for line in _shell_lines() if line.startswith("make ")}
    assert {"demo", "test", "check"} <= named
    assert named <= set(re.findall(r"^(\w+):", makefile, re.MULTILINE))


def test_the_table_of_verbs_is_complete() -> None:
    assert tuple(_first_cells("Quick start: command line")) == program.VERB_ORDER


def test_the_table_of_extras_is_true() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    section = pyproject.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = ", section, re.MULTILINE))
    reserved = re.search(r"The extras? (.*?) (?:is|are) reserved", README, re.DOTALL)
    assert reserved is not None
    later = set(re.findall(r"`(\w+)`", reserved.group(1)))
    assert set(_first_cells("What to install")) | later == extras


def test_the_table_of_errors_is_true() -> None:
    section = README.partition("\n## Errors and exit codes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+Error)` \| `(\w+)` \|", section, re.MULTILINE)
    assert rows
    for name, also in rows:
        base = getattr(errors, also, None) or getattr(builtins, also)
        assert issubclass(getattr(errors, name), base)


def test_links_and_pictures_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
    targets = set(re.findall(r"\]\(([^)]+)\)", README))
    assert PICTURE in targets
    if not bundled_models():
        targets.remove(PICTURE)  # it shows what the bundled model finds
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("https://"):
            assert (ROOT / target).is_file(), f"{target} is missing"


def test_the_model_card_is_filled_when_a_model_is_bundled() -> None:
    assert ("model-card: to be filled" in README) == (not bundled_models())


def test_documented_exit_codes_are_those_of_the_program() -> None:
    rows = re.findall(r"^\| (\d+) \| ", README, re.MULTILINE)
    codes = (program.DONE, program.FAILED, program.WRONG_USAGE, program.INTERRUPTED)
    assert [int(row) for row in rows] == list(codes)
