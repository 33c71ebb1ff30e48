"""The campaigns of training, at the smallest size: tables that hold what was measured."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import cv2
import pytest
from streaming import until
from tiny_dataset import write_dataset

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
_SMALL = ("--steps", "2", "--crop", "64", "--batch-size", "2", "--samples", "1", "--threads", "1")


def run(script, folder, *options):
    out = folder / "result.json"
    command = [sys.executable, _BENCHMARKS / script, folder / "data", *_SMALL, *options]
    done = subprocess.run(
        [*command, "--work", folder / "runs", "-o", out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), out.with_suffix(".md").read_text(), done.stdout


@pytest.fixture
def folder(tmp_path):
    root = write_dataset(tmp_path / "data", size_hw=(512, 512))
    for path in (root / "images").iterdir():  # calibration refuses what looks like noise
        cv2.imwrite(str(path), cv2.GaussianBlur(cv2.imread(str(path)), (0, 0), 2))
    return tmp_path


@pytest.fixture
def scripts(monkeypatch):
    """Lets the scripts be imported."""
    monkeypatch.syspath_prepend(_BENCHMARKS)


@pytest.mark.slow
def test_an_ablation_goes_on_where_its_time_ended(folder):
    options = ("--model", "ccl-nano", "--factors", "up", "--seeds", "1")
    first, _, _ = run("ablation.py", folder, *options, "--hours", "0")
    assert list(first["candidates"]) == ["baseline"]
    result, table, said = run("ablation.py", folder, *options)
    assert list(result["candidates"]) == ["baseline", "up=bilinear", "up=corr"]
    assert result["candidates"]["baseline"] == first["candidates"]["baseline"]  # trained once
    assert table.count("\n") == 2 + 3
    assert "up=corr seed 1: mIoU" in said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_campaign_leaves_no_process_behind(folder):
    words = ["--models", "ccl-nano", "ccl-small", "--jobs", "2", "--steps", "100000", *_SMALL[2:]]
    script = [sys.executable, _BENCHMARKS / "rivals.py", folder / "data"]
    with subprocess.Popen([*script, *words, "--work", folder / "runs"]) as campaign:
        until(lambda: len(list(folder.glob("runs/*/seed1/config.json"))) == 2)
        workers = Path(f"/proc/{campaign.pid}/task/{campaign.pid}/children").read_text().split()
        campaign.kill()
    assert len(workers) >= 2
    until(lambda: not any(_is_running(worker) for worker in workers))


def _is_running(process):
    try:
        words = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return words.rpartition(")")[2].split()[0] != "Z"


def test_every_value_is_tried_in_place_of_the_default(scripts):
    import ablation

    arguments = Namespace(
        model="ccl-nano", factors=["fusion", "augmentation"], every=False,
        steps=10, crop=64, batch_size=2, validations=1,
    )  # fmt: skip
    one_by_one = [candidate.name for candidate in ablation._candidates(arguments)]
    assert one_by_one[:4] == ["baseline", "fusion=plain", "fusion=gather", "fusion=full"]
    assert len(one_by_one) == 1 + 3 + 6  # gate and the group "default" are the default
    arguments.every = True
    combined = list(ablation._candidates(arguments))
    assert len(combined) == 4 * 7
    assert len({(c.network, c.recipe) for c in combined}) == 4 * 7


@pytest.mark.slow
def test_rivals_get_a_table_and_a_picture(folder):
    options = ("--models", "ccl-nano", "ccl-small", "--seeds", "2", "--jobs", "2")
    result, table, _ = run("rivals.py", folder, *options)
    assert [len(entry["trials"]) for entry in result["networks"].values()] == [2, 2]
    assert {trial["seed"] for trial in result["networks"]["ccl-nano"]["trials"]} == {1, 2}
    assert table.count("\n") == 2 + 2
    assert (folder / "result.png").read_bytes().startswith(b"\x89PNG")


def test_the_front_holds_what_nothing_beats(scripts):
    from rivals import pareto_front

    points = {"slow": (9.0, 0.7), "worse": (5.0, 0.4), "fast": (1.0, 0.5), "same": (1.0, 0.45)}
    assert pareto_front(points) == ["fast", "slow"]
