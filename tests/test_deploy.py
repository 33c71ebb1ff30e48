"""The files for deployment: they name what exists, hold no secrets, and the unit passes systemd."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from cclseg.cli import app as program

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "cclseg.service"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
EXPECTED_IMAGES = {
    "cpu": "python:3.12-slim-bookworm",
    "jetpack6": "nvcr.io/nvidia/l4t-jetpack:r36.4.0",
    "jetpack7": "nvcr.io/nvidia/tensorrt:25.09-py3",
}
WORST_EXPOSURE = 25  # tenths, by "systemd-analyze security"; a unit without any hardening has 96


def _instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, each with what follows it, continued lines included."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(name, " ".join(rest.split())) for name, rest in pairs]


def _of(path: Path, wanted: str) -> list[str]:
    return [rest for name, rest in _instructions(path) if name == wanted]


def _is_sent(path: str) -> bool:
    """Says whether .dockerignore lets a path through to the build; the last pattern decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            if fnmatch(path, pattern) or path.startswith(f"{pattern}/"):
                sent = line.startswith("!")
    return sent


def _parses(words: list[str]) -> None:
    """Fails where a command line of ours is wrong usage."""
    assert Path(words[0]).name == "cclseg"
    words = [word.replace("/run/cclseg", "/tmp") for word in words[1:]]
    first = next(index for index, word in enumerate(words) if not word.startswith("-"))
    with program.app.make_context("cclseg", [*words], resilient_parsing=True) as context:
        verb = program.app.get_command(context, words[first])
    assert verb is not None
    assert verb.make_context(words[first], words[first + 1 :]).params


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.stem)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert {path.stem for path in DOCKERFILES} == set(EXPECTED_IMAGES)


def test_it_starts_from_a_fixed_version(dockerfile: Path) -> None:
    arguments = dict(rest.split("=", 1) for rest in _of(dockerfile, "ARG"))
    for image in _of(dockerfile, "FROM"):
        name = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], image.split()[0])
        assert name == EXPECTED_IMAGES[dockerfile.stem]


def test_what_it_copies_exists_and_is_sent_to_the_build(dockerfile: Path) -> None:
    copies = [rest.split() for rest in _of(dockerfile, "COPY") if "--from" not in rest]
    sources = {source for words in copies for source in words[:-1]}
    assert {"pyproject.toml", "sdk", "LICENSE"} <= sources
    for source in sources:
        assert (ROOT / source).exists()
        assert _is_sent(source)
    assert _is_sent("sdk/cclseg/__init__.py")
    assert not _is_sent(".git")
    assert not _is_sent("tests")
    assert not _is_sent(".venv")


def test_it_copies_all_that_the_package_is_built_from(dockerfile: Path) -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    (packages,) = re.findall(r'^packages = (\["sdk.+\])$', pyproject, re.MULTILINE)
    folders = {Path(folder).parts[0] for folder in json.loads(packages)}
    copied = {word for rest in _of(dockerfile, "COPY") for word in rest.split()}
    assert folders | {"README.md", "build_native.py"} <= copied


def test_the_extras_that_it_installs_exist(dockerfile: Path) -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    section = pyproject.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    known = set(re.findall(r"^(\w+) = ", section, re.MULTILINE))
    (extras,) = re.findall(r'pip install [^"]*"\.\[([\w,]+)\]"', dockerfile.read_text())
    assert {"cpu", "serve"} <= set(extras.split(",")) <= known


def test_its_shell_lines_are_shell(dockerfile: Path) -> None:
    for script in _of(dockerfile, "RUN"):
        subprocess.run(["bash", "-n", "-c", script], check=True)
        if "apt-get install" in script:
            assert "--no-install-recommends" in script
            assert script.endswith("rm -rf /var/lib/apt/lists/*")


def test_it_runs_as_a_user_of_its_own_and_is_watched(dockerfile: Path) -> None:
    assert _of(dockerfile, "USER") == ["cclseg"]
    assert any("useradd" in script and " cclseg" in script for script in _of(dockerfile, "RUN"))
    (check,) = _of(dockerfile, "HEALTHCHECK")
    words = json.loads(check.partition("CMD ")[2])
    _parses(words)
    (entry,) = _of(dockerfile, "ENTRYPOINT")
    assert words[-1] in json.loads(entry)  # the file that is written is the file that is read
    _parses([*json.loads(entry), "rtsp://10.0.0.7/live"])


def test_it_holds_no_secrets(dockerfile: Path) -> None:
    for name in ("ARG", "ENV"):
        for rest in _of(dockerfile, name):
            assert not re.search(r"password|token|secret|key", rest, re.IGNORECASE)


def _unit_values(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def _environment() -> dict[str, str]:
    text = (DEPLOY / "cclseg.env").read_text()
    return dict(line.split("=", 1) for line in text.splitlines() if line and line[0] != "#")


def test_the_unit_starts_what_the_program_takes() -> None:
    (command,) = _unit_values("ExecStart")
    environment = _environment()
    named = re.findall(r"\$\{?(\w+)\}?", command)
    assert set(named) == set(environment)
    filled = re.sub(r"\$\{?(\w+)\}?", lambda m: environment[m[1]], command)
    _parses(shlex.split(filled.replace("%t/", "/run/")))


def test_the_unit_is_watched_and_restarted() -> None:
    assert _unit_values("Type") == ["notify"]
    assert _unit_values("WatchdogSec")
    assert _unit_values("Restart") == ["on-failure"]


@pytest.fixture
def checkable_unit(tmp_path: Path) -> Path:
    """The unit with the path of a program that exists here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (apt install systemd)")
    here = shlex.quote(str(Path(sys.executable)))
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/cclseg/bin/cclseg", f"{here} -m cclseg"))
    return path


def test_systemd_finds_no_fault_in_the_unit(checkable_unit: Path) -> None:
    extra = checkable_unit.with_name("cclseg.service.d")
    extra.mkdir()
    shutil.copy(DEPLOY / "jetson.conf", extra)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", checkable_unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "cclseg" in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_unit_is_hardened(checkable_unit: Path) -> None:
    words = ["systemd-analyze", "security", "--offline=true", f"--threshold={WORST_EXPOSURE}"]
    done = subprocess.run([*words, checkable_unit], capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot look at a unit offline (250 can)")
    assert done.returncode == 0, done.stdout.splitlines()[-1]
