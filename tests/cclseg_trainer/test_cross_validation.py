"""Cross-validation: pooled counts, folds that are kept, and a kill in the middle."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_dataset import write_dataset

from cclseg.errors import InputError
from cclseg.metrics import ConfusionMatrix
from cclseg.spec import ModelSpec
from cclseg_trainer.cross_validation import CrossValidation, FoldResult
from cclseg_trainer.cross_validation_cli import cross_validate
from cclseg_trainer.cross_validation_page import cross_validation_page

STEMS = ("north_1", "north_2", "south_1", "west_1")
QUICK = (
    *("--model", "ccl-nano", "--no-pretrained", "--steps", "2", "--val-every", "2"),
    *("--batch-size", "2", "--crop", "64"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("places") / "data", stems=STEMS, size_hw=(64, 64))


def run(data, out, *options):
    """Runs the verb; errors of the SDK reach the test."""
    words = [str(data), "-o", str(out), *QUICK, *map(str, options)]
    return CliRunner().invoke(cross_validate, words, catch_exceptions=False)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of an uninterrupted cross-validation, and what was printed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    done = run(data, out, "--json", out.parent / "figures.json")
    assert done.exit_code == 0, done.output
    return out, done.output


def matrices(folder):
    paths = sorted(folder.glob("*/left_out.json"))
    return {path.parent.name: json.loads(path.read_text())["confusion"] for path in paths}


class TestOutcome:
    def test_every_place_is_left_out_and_has_a_run_and_a_page(self, finished):
        out, printed = finished
        assert {path.name for path in out.iterdir() if path.is_dir()} == {"north", "south", "west"}
        for place in ("north", "south", "west"):
            assert (out / place / "best.pt").stat().st_size
            assert (out / place / "left_out.html").read_text().startswith("<!doctype html>")
            assert place in printed
        page = (out / "cross_validation.html").read_text()
        assert 'href="north/left_out.html"' in page

    def test_pooled_counts_are_the_sum_of_those_of_the_folds(self, finished):
        out, _ = finished
        figures = json.loads((out / "cross_validation.json").read_text())
        total = np.sum(list(matrices(out).values()), axis=0)
        np.testing.assert_array_equal(figures["confusion"], total)
        pooled = ConfusionMatrix(3)
        pooled.counts += total
        assert figures["pooled"]["miou"] == pytest.approx(pooled.miou)
        folds = [json.loads(path.read_text()) for path in out.glob("*/left_out.json")]
        pooled.boundary.counts += np.sum([fold["boundary"] for fold in folds], axis=0)
        assert figures["pooled"]["boundary_f"] == pytest.approx(pooled.boundary.f_score)
        assert figures["pooled"]["images"] == 4
        assert figures["pooled"]["pixels"] == 4 * 60 * 64  # four rows have no label

    def test_mean_and_deviation_are_those_over_the_folds(self, finished):
        out, printed = finished
        figures = json.loads((out.parent / "figures.json").read_text())
        mious = [fold["miou"] for fold in figures["folds"].values()]
        assert figures["mean_miou"] == pytest.approx(np.mean(mious))
        assert figures["std_miou"] == pytest.approx(np.std(mious, ddof=1))
        assert f"{np.mean(mious):.3f} ± {np.std(mious, ddof=1):.3f}" in " ".join(printed.split())

    def test_started_again_it_trains_nothing_and_says_the_same(self, data, finished, monkeypatch):
        out, _ = finished
        before = (out / "cross_validation.json").read_bytes()
        monkeypatch.setattr("cclseg_trainer.cross_validation.train", None)
        assert run(data, out).exit_code == 0
        assert (out / "cross_validation.json").read_bytes() == before

    def test_other_settings_do_not_continue_it(self, data, finished):
        for other, part in ((("--lr", 0.1), "train"), (("--groups", "image"), "folds")):
            with pytest.raises(InputError, match=f"another cross-validation .other {part}"):
                run(data, finished[0], *other)


@pytest.mark.slow
def test_a_killed_one_ends_with_the_counts_of_an_uninterrupted_one(data, finished, tmp_path):
    out = tmp_path / "killed"
    code = (
        "import os, signal, sys\n"
        "from cclseg_trainer.cross_validation_cli import cross_validate\n"
        "from cclseg_trainer.progress import TrainingDisplay\n"
        "starts = []\n"
        "def kill_in_the_second_fold(display, step, steps, loss):\n"
        "    starts.append(step == 1)\n"
        "    if sum(starts) == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "TrainingDisplay.on_step = kill_in_the_second_fold\n"
        "cross_validate(sys.argv[1:])\n"
    )
    words = [sys.executable, "-c", code, str(data), "-o", str(out), *QUICK]
    killed = subprocess.run(words, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(matrices(out)) == ["north"]
    kept = (out / "north" / "best.pt").stat()
    assert run(data, out).exit_code == 0
    assert (out / "north" / "best.pt").stat() == kept
    assert matrices(out) == matrices(finished[0])


def test_a_damaged_record_says_what_to_remove(data, finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "copy")
    (out / "south" / "left_out.json").write_text("{")
    with pytest.raises(InputError, match=r"south.left_out\.json is damaged .*; remove it"):
        run(data, out)
    (out / "south" / "left_out.json").unlink()
    assert run(data, out).exit_code == 0
    assert matrices(out) == matrices(finished[0])


class TestMissingClasses:
    @pytest.fixture
    def outcome(self):
        """Three folds; no one has class 2, the second has class 0 alone, the third no label."""
        folds = []
        for name, counts in (
            ("a", [[8, 2, 0], [0, 10, 0], [0, 0, 0]]),
            ("b", [[10, 0, 0], [0, 0, 0], [0, 0, 0]]),
            ("c", np.zeros((3, 3))),
        ):
            matrix = ConfusionMatrix(3)
            matrix.counts += np.array(counts, np.int64)
            folds.append(FoldResult(name, 1, matrix))
        spec = ModelSpec(name="nano", class_names=("land", "water", "road"))
        return CrossValidation(spec, tuple(folds))

    def test_what_does_not_occur_counts_nowhere(self, outcome):
        figures = outcome.to_json()
        first = (8 / 10 + 10 / 12) / 2
        assert figures["folds"]["a"]["miou"] == pytest.approx(first)
        assert figures["folds"]["c"]["miou"] is None
        assert figures["mean_miou"] == pytest.approx((first + 1) / 2)
        assert figures["std_miou"] == pytest.approx(np.std([first, 1], ddof=1))
        assert figures["per_class_iou"]["water"] == {"mean": pytest.approx(10 / 12), "std": None}
        assert figures["per_class_iou"]["road"] == {"mean": None, "std": None}
        assert figures["pooled"]["miou"] == pytest.approx((18 / 20 + 10 / 12) / 2)

    def test_the_page_shows_a_dash(self, outcome):
        page = cross_validation_page(outcome, title="<nano>")
        assert "<td>–</td>" in page
        assert "<h1>&lt;nano&gt;</h1>" in page
