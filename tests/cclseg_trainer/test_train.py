"""Training: it learns, it resumes to the same weights after a kill, it refuses what it must."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from interrupted import StopAtFive

from cclseg.errors import BackendError, DatasetError, InputError
from cclseg_trainer.checkpoint import load_checkpoint
from cclseg_trainer.cli import train as train_command
from cclseg_trainer.config import AugmentConfig, LossConfig, TrainConfig
from cclseg_trainer.models import VARIANTS
from cclseg_trainer.schedule import learning_rate
from cclseg_trainer.start import initial_network
from cclseg_trainer.train import TrainingError, train

NANO = VARIANTS["ccl-nano"]
QUICK = TrainConfig(
    steps=6, batch_size=2, crop_px=64, val_every=3, warmup_steps=2, pretrained=False
)


def test_a_few_steps_learn_flat_colours(tiny_dataset, tmp_path):
    config = replace(
        QUICK, steps=60, val_every=30, batch_size=4, augment=AugmentConfig(photometric=0.3)
    )
    result = train(tiny_dataset, NANO, config, tmp_path / "run")
    assert result.report["miou"] > 0.6
    files = {path.name for path in (tmp_path / "run").iterdir()}
    pictures_and_figures = {"config.json", "metrics.csv", "curves.png", "tensorboard"}
    assert files == {"best.pt", "last.pt"} | pictures_and_figures
    with (tmp_path / "run" / "metrics.csv").open() as file:
        names = {row["name"] for row in csv.DictReader(file)}
    assert {"loss", "lr", "val/miou", "val/iou/red"} <= names


def test_same_seed_gives_the_same_weights(tiny_dataset, tmp_path):
    first, second = (
        load_checkpoint(train(tiny_dataset, NANO, QUICK, tmp_path / name).best).weights
        for name in "ab"
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(tiny_dataset, tmp_path):
    whole = train(tiny_dataset, NANO, QUICK, tmp_path / "whole")
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from cclseg.dataset import open_dataset\n"
        "from cclseg_trainer.config import TrainConfig\n"
        "from cclseg_trainer.models import VARIANTS\n"
        "from cclseg_trainer.train import train\n"
        "class KillAtFive:\n"
        "    def on_step(self, step, steps, loss):\n"
        "        if step == 5:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "    def on_validation(self, step, report, *, is_best):\n"
        "        pass\n"
        "config = TrainConfig(steps=6, batch_size=2, crop_px=64, val_every=3, warmup_steps=2,\n"
        "                     pretrained=False)\n"
        "train(open_dataset(sys.argv[1]), VARIANTS['ccl-nano'], config, Path(sys.argv[2]),\n"
        "      progress=KillAtFive())\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tiny_dataset.root), str(tmp_path / "killed")], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "killed" / "last.pt").step == 3
    resumed = train(tiny_dataset, NANO, QUICK, tmp_path / "killed")
    expected, found = (load_checkpoint(r.best.parent / "last.pt") for r in (whole, resumed))
    assert expected.step == found.step == 6
    for name, value in expected.weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=0, atol=0)
    whole_csv, killed_csv = (tmp_path / name / "metrics.csv" for name in ("whole", "killed"))
    assert killed_csv.read_text() == whole_csv.read_text()


def test_losses_that_remember_and_that_draw_resume_alike_too(tiny_dataset, tmp_path):
    loss = LossConfig(dynamic=True, potential=0.5, sparse=0.1, lovasz=1, focal=0.5, ohem=0.5)
    config = replace(QUICK, loss=loss)
    whole = train(tiny_dataset, NANO, config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tiny_dataset, NANO, config, tmp_path / "stopped", progress=StopAtFive())
    resumed = train(tiny_dataset, NANO, config, tmp_path / "stopped")
    expected, found = (load_checkpoint(r.best.parent / "last.pt") for r in (whole, resumed))
    assert found.resume["balance"] == expected.resume["balance"]
    for name, value in expected.weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=0, atol=0)


def test_another_recipe_does_not_continue_a_run(tiny_dataset, tmp_path):
    train(tiny_dataset, NANO, QUICK, tmp_path)
    with pytest.raises(InputError, match=r"lr was 0\.002, is 0\.1"):
        train(tiny_dataset, NANO, replace(QUICK, lr=0.1), tmp_path)


def test_broken_data_stop_before_anything_is_written(tiny_dataset, tmp_path):
    broken = replace(tiny_dataset, image_paths={})
    with pytest.raises(DatasetError, match="3 of 3 samples"):
        train(broken, NANO, QUICK, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(tiny_dataset, tmp_path):
    with pytest.raises(TrainingError, match=r"bad_batch\.pt"):
        train(tiny_dataset, NANO, replace(QUICK, lr=1e30, warmup_steps=1), tmp_path)
    batch = torch.load(tmp_path / "bad_batch.pt", weights_only=True)
    assert batch["images"].shape == (2, 3, 64, 64)


def test_a_time_budget_plans_the_steps(tiny_dataset, tmp_path):
    config = replace(QUICK, steps=10_000, max_minutes=0.05, val_every=10_000)
    result = train(tiny_dataset, NANO, config, tmp_path)
    assert 15 < result.step < 10_000


def test_a_student_learns_from_a_teacher(tiny_dataset, tmp_path):
    teacher = train(tiny_dataset, NANO, QUICK, tmp_path / "teacher").best
    alone = train(tiny_dataset, NANO, replace(QUICK, seed=2), tmp_path / "alone")
    taught = train(tiny_dataset, NANO, replace(QUICK, seed=2), tmp_path / "b", teachers=[teacher])
    weights = [load_checkpoint(r.best).weights["head.2.bias"] for r in (alone, taught)]
    assert not torch.equal(*weights)


def test_a_run_can_start_from_another(tiny_dataset, tmp_path):
    first = train(tiny_dataset, NANO, QUICK, tmp_path / "first").best
    still = replace(QUICK, lr=1e-12, steps=1, warmup_steps=0)
    second = train(tiny_dataset, NANO, still, tmp_path / "second", start=first).best
    before, after = (load_checkpoint(path).weights for path in (first, second))
    learnt = [name for name in before if name.endswith((".weight", ".bias"))]
    for name in learnt:
        if not name.startswith("head.2."):  # which gets a temperature of its own
            torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="start from a run of the same model"):
        train(tiny_dataset, VARIANTS["ccl-lite0"], QUICK, tmp_path / "third", start=first)


def test_learning_rate_warms_up_and_falls_to_zero():
    config = TrainConfig(steps=1000, warmup_steps=100, lr=1.0)
    rates = np.array([learning_rate(step, 1000, config) for step in range(1000)])
    assert rates.argmax() in (99, 100)
    assert (np.diff(rates[:100]) > 0).all()
    assert (np.diff(rates[100:]) < 0).all()
    assert rates[-1] < 0.01


@pytest.mark.parametrize("damage", ["empty", "half", "text", "foreign"])
def test_damaged_checkpoints_are_refused(tiny_dataset, tmp_path, damage):
    path = tmp_path / "best.pt"
    if damage == "foreign":
        torch.save({"weights": {}}, path)
    else:
        whole = train(tiny_dataset, NANO, replace(QUICK, steps=1), tmp_path / "run").best
        data = whole.read_bytes()
        path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "text": b"hello"}[damage])
    with pytest.raises(BackendError, match=r"best\.pt"):
        load_checkpoint(path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self):
            return (marker.write_text, ("ran",))

    torch.save({"format": 1, "config": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(BackendError, match=r"evil\.pt"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not marker.exists()


def test_where_memory_ends_the_message_says_what_to_lower(tiny_dataset, tmp_path, monkeypatch):
    def greedy_network(*arguments):
        network = initial_network(*arguments)
        network.encoder.register_forward_hook(lambda *_: torch.empty(1 << 60))
        return network

    monkeypatch.setattr("cclseg_trainer.train.initial_network", greedy_network)
    with pytest.raises(TrainingError, match=r"2 crops of 64 x 64 px; lower --batch-size or --crop"):
        train(tiny_dataset, NANO, QUICK, tmp_path)


def test_options_choose_the_network_and_its_bands(dataset_with_heights, tmp_path):
    options = (
        "--model ccl-nano --fusion gather --metric sad --up corr --ctx ppm --adaptive lsk "
        "--auto rotation --lag-weights dynamic --activation relu --bands red,green,blue "
        "--indices exg,vari --height-head --no-pretrained --steps 2 --batch-size 2 --crop 64"
    )
    run = tmp_path / "run"
    result = CliRunner().invoke(
        train_command,
        [str(dataset_with_heights.root), "-o", str(run), *options.split()],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    checkpoint = load_checkpoint(run / "best.pt")
    expected = replace(
        NANO, num_classes=3, fusion="gather", metric="sad", up="corr", ctx="ppm", adaptive="lsk",
        auto="rotation", lag_weights="dynamic", activation="relu", indices=("exg", "vari"),
        band_names=("red", "green", "blue"), band_gain=(128 / 255,) * 3,
        band_offset=(127 / 255,) * 3, height_head=True,
    )  # fmt: skip
    assert checkpoint.model_config == expected
    assert checkpoint.spec.bands == ("red", "green", "blue")
    assert checkpoint.build()(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 16, 16)


def test_a_network_of_another_kind_has_no_such_switch(tmp_path):
    with pytest.raises(InputError, match="unet-r18 has no --ctx"):
        CliRunner().invoke(
            train_command,
            ["data", "-o", str(tmp_path / "run"), "--model", "unet-r18", "--ctx", "ppm"],
            catch_exceptions=False,
        )


def test_heights_are_learnt_where_the_data_have_them(dataset_with_heights, tiny_dataset, tmp_path):
    data = dataset_with_heights
    config = replace(QUICK, steps=40, val_every=40, augment=AugmentConfig(photometric=0.3))
    result = train(data, replace(NANO, height_head=True), config, tmp_path / "run")
    model = load_checkpoint(result.best).build().train()
    sample = data.load("a", with_heights=True)
    image = torch.from_numpy((sample.image.astype(np.float32) - 127) / 128).permute(2, 0, 1)
    with torch.inference_mode():
        heights = model(torch.stack([image, image])).heights[0, 0].numpy()
    truth = sample.heights[2::4, 2::4]
    known = np.isfinite(truth)  # 255 in the mask is beyond what heights can be
    known[0] = False
    assert np.corrcoef(heights[known], truth[known])[0, 1] > 0.6
    with pytest.raises(InputError, match="holds none; expected metres above ground"):
        train(tiny_dataset, replace(NANO, height_head=True), config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_names_of_bands_must_be_as_many_as_the_bands(tiny_dataset, tmp_path):
    with pytest.raises(InputError, match="3 bands, 2 names were given"):
        train(tiny_dataset, replace(NANO, band_names=("a", "b")), QUICK, tmp_path / "run")
