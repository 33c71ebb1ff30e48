"""The group: verbs, exit codes, errors, log."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg import __version__
from cclseg.cli.app import VERB_ORDER, find_verbs, run

if TYPE_CHECKING:
    from .conftest import Cclseg, Start

HEAVY = ("cv2", "onnxruntime", "openvino", "torch", "onnx", "rich", "matplotlib", "rasterio")


@pytest.mark.parametrize("verb", VERB_ORDER)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: cclseg {verb}")
    assert "Not available" not in text


def test_help_lists_the_verbs_in_the_order_of_the_contract(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2].split("\n")
    names = [line.split()[0] for line in listed if line.strip() and not line.startswith("   ")]
    assert tuple(names) == VERB_ORDER


@pytest.mark.parametrize("arguments", ["[]", "['--help']", "['train', '--help']"])
def test_help_loads_no_heavy_library(arguments: str) -> None:
    code = (
        f"import sys; from cclseg.cli.app import run; run({arguments});"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"cclseg {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [("predct", "predict"), ("tarin", "train"), ("dcotor", "doctor")]
)
def test_a_mistyped_verb_is_wrong_usage_and_names_the_one_meant(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([typed]) == 2
    assert f"there is no verb '{typed}'; did you mean '{meant}'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERB_ORDER)
def test_an_unknown_option_is_wrong_usage(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--no-such-option"]) == 2
    assert "--no-such-option" in capsys.readouterr().err


def test_a_mistyped_option_names_the_one_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--jsn", "x"]) == 2
    assert "'--json'" in capsys.readouterr().err


@given(st.text(min_size=1).filter(lambda word: word not in find_verbs()))
def test_whatever_is_no_verb_is_wrong_usage(word: str) -> None:
    assert run([word]) == (0 if word in ("-h", "--help", "--version") else 2)


def test_a_missing_argument_is_wrong_usage(cclseg: Cclseg) -> None:
    result = cclseg("inspect")
    assert result.returncode == 2
    assert "Missing argument 'MODEL'" in result.stderr


def test_an_error_of_the_sdk_is_one_line(cclseg: Cclseg) -> None:
    result = cclseg("refuse")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == "error: got 4 bands, the model takes 3; choose them\n"


def test_a_bug_names_the_command_that_shows_its_traceback(cclseg: Cclseg) -> None:
    result = cclseg("crash", "--colour", "deep blue")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "KeyError: 'no such key'" in result.stderr
    assert result.stderr.endswith(": cclseg --debug crash --colour 'deep blue'\n")


def test_debug_shows_the_traceback_of_a_bug(cclseg: Cclseg) -> None:
    result = cclseg("--debug", "crash")
    assert result.returncode == 1
    assert 'plugged_in_verbs.py", line' in result.stderr


def test_a_missing_library_is_no_bug(cclseg: Cclseg) -> None:
    result = cclseg("need")
    assert result.returncode == 1
    assert result.stderr == (
        "error: the library 'a_library' is not installed; run: pip install \"cclseg[all]\"\n"
    )


def test_a_verb_chooses_its_exit_code(cclseg: Cclseg) -> None:
    assert cclseg("half").returncode == 1


def test_ctrl_c_ends_with_one_line_and_its_own_code(start: Start) -> None:
    with start("wait") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.strip() == "interrupted"


def test_a_reader_that_leaves_is_no_error(start: Start) -> None:
    with start("flood") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "a line of output\n"
        process.stdout.close()
        assert process.stderr.read() == ""


def test_warnings_are_shown_and_information_is_not(cclseg: Cclseg) -> None:
    assert cclseg("talk").stderr.splitlines() == [
        "warning: cclseg at warning",
        "warning: library at warning",
    ]


def test_verbose_shows_the_information_of_our_own_packages(cclseg: Cclseg) -> None:
    assert cclseg("-v", "talk").stderr.splitlines() == [
        "info: cclseg at info",
        "warning: cclseg at warning",
        "warning: library at warning",
    ]
    assert "debug: cclseg at debug" in cclseg("-vv", "talk").stderr


def test_verbs_of_other_packages_are_listed_after_ours(cclseg: Cclseg) -> None:
    text = cclseg("--help").stdout
    assert text.index("  doctor ") < text.index("  crash ") < text.index("  refuse ")
    assert "Meet a bug." in text


def test_a_verb_that_cannot_be_loaded_stays_listed_and_says_why(cclseg: Cclseg) -> None:
    assert "  absent " in cclseg("--help").stdout
    result = cclseg("absent", "--whatever", "x")
    assert result.returncode == 1
    assert "No module named 'no_such_module'" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_package_cannot_replace_a_verb_of_the_runtime(cclseg: Cclseg) -> None:
    assert "Say what a model file holds" in cclseg("inspect", "--help").stdout
