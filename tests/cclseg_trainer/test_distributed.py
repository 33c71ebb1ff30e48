"""Two real processes train as one does, and end together."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import joint_training
import pytest
import torch
from joint_training import CONFIG, NANO
from tiny_dataset import write_dataset

from cclseg.dataset import UNLABELLED, open_dataset
from cclseg.errors import InputError
from cclseg_trainer.checkpoint import load_checkpoint
from cclseg_trainer.config import QUANTIZED_RECIPE, TrainConfig
from cclseg_trainer.distributed import Ranks, join_ranks, refuse_several
from cclseg_trainer.start import initial_network
from cclseg_trainer.train import train

TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run"),
    *("--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two labelled images to learn from and two without masks."""
    root = write_dataset(tmp_path_factory.mktemp("tiny") / "data", stems=tuple("abuvcd"))
    splits = {"train": ["a", "b"], "val": ["c"], "test": ["d"], UNLABELLED: ["u", "v"]}
    (root / "splits.json").write_text(json.dumps(splits))
    for stem in splits[UNLABELLED]:
        (root / "masks" / f"{stem}.png").unlink()
    return open_dataset(root)


@pytest.fixture(scope="module")
def together(dataset, tmp_path_factory):
    """The folder of what two processes leave, and what they print; see the script."""
    folder = tmp_path_factory.mktemp("together")
    script = Path(joint_training.__file__)
    done = subprocess.run(
        [*TORCHRUN, "--max-restarts", "1", script, dataset.root, folder],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def figures(run):
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(int(row["step"]), row["name"]): float(row["value"]) for row in rows}


def outcomes(folder):
    return [json.loads((folder / f"{own}.json").read_text()) for own in (0, 1)]


@pytest.mark.slow
def test_two_processes_have_the_losses_and_weights_of_one(dataset, together, tmp_path):
    """To 1e-4 of the loss; AdamW makes whole steps of the last bits of very small gradients."""
    train(dataset, NANO, CONFIG, tmp_path)
    run = together[0] / "run"
    assert figures(run) == pytest.approx(figures(tmp_path), rel=1e-4)
    start = initial_network(NANO, CONFIG, None)
    first, one, both = (
        torch.cat([weights[name].flatten() for name, _ in start.named_parameters()])
        for weights in (
            start.state_dict(),
            *(load_checkpoint(path / "last.pt").resume["model"] for path in (tmp_path, run)),
        )
    )
    assert (both - one).norm() < 0.01 * (one - first).norm()


@pytest.mark.slow
def test_only_the_first_process_tells_what_comes_next(together):
    folder, printed = together
    assert printed.count("next: cclseg val") == 1
    assert (folder / "run" / "curves.png").exists()


@pytest.mark.slow
def test_when_one_is_killed_all_end_and_resume_to_the_same_weights(together):
    runs = [together[0] / name for name in ("run", "killed")]
    expected, found = (load_checkpoint(run / "last.pt") for run in runs)
    assert expected.step == found.step == CONFIG.steps
    for name, value in expected.weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=0, atol=0)
    assert figures(runs[0]) == figures(runs[1])


@pytest.mark.slow
def test_a_process_whose_first_one_is_gone_says_so(together):
    assert "another process of this training has ended" in outcomes(together[0])[1]["lost"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_all_with_the_joint_batch_saved(together):
    first, second = (told["stopped"] for told in outcomes(together[0]))
    assert "bad_batch.pt" in first
    assert first == second
    batch = torch.load(together[0] / "broken" / "bad_batch.pt", weights_only=True)
    assert batch["images"].shape == (6, 3, 64, 64)
    assert (batch["masks"][:4] != 255).flatten(1).any(1).all()  # labelled crops stand first


@pytest.mark.slow
def test_gradients_and_statistics_are_those_of_the_joint_batch(together):
    """In double precision, where nothing hides behind rounding."""
    for told in outcomes(together[0]):
        differences = told["differences"]
        assert max(differences[name] for name in ("loss", "gradients", "buffers")) < 1e-12
        parts = [
            (head, part) for head in ("coarse", "edge", "token") for part in ("bias", "weight")
        ]
        assert differences["without"] == [f"{head}_head.{part}" for head, part in parts]


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (TrainConfig(batch_size=6), "batch_size is 6, .* expected a multiple of 4"),
        (TrainConfig(unlabelled_crops=2), "unlabelled_crops is 2, .* expected a multiple of 4"),
        (QUANTIZED_RECIPE, "start it without torchrun"),
    ],
)
def test_what_processes_cannot_share_is_refused(config, problem):
    with pytest.raises(InputError, match=problem):
        Ranks(torch.device("cpu"), own=1, count=4).check(config)


def test_what_takes_one_process_says_so_under_torchrun(monkeypatch):
    refuse_several("pretraining")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="pretraining was started in 2 processes and takes one"):
        refuse_several("pretraining")


def test_without_torchrun_there_is_one_process_that_does_all():
    ranks = join_ranks()
    assert (ranks.own, ranks.count, ranks.is_first) == (0, 1, True)
    ranks.check(dataclasses.replace(QUANTIZED_RECIPE, batch_size=7))
    assert list(range(5))[ranks.share] == list(range(5))


def test_the_shares_of_all_processes_are_the_joint_batch():
    crops = list(range(8 + 4))
    shares = [crops[Ranks(torch.device("cpu"), own, 4).share] for own in range(4)]
    assert sorted(crop for share in shares for crop in share) == crops
    assert all(sum(crop < 8 for crop in share) == 2 for share in shares)
