"""Pretraining: it learns to paint what is hidden, does not collapse, and hands its weights on."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from interrupted import StopAtFive
from tiny_dataset import write_dataset

from cclseg.errors import BackendError, InputError
from cclseg_trainer.checkpoint import load_checkpoint
from cclseg_trainer.cli import pretrain as pretrain_command
from cclseg_trainer.config import PRETRAINING_RECIPE, TrainConfig
from cclseg_trainer.losses import unexplained_share
from cclseg_trainer.models import VARIANTS, build_model
from cclseg_trainer.pretrain import pretrain, spread
from cclseg_trainer.start import initial_network
from cclseg_trainer.train import TrainingError, train
from cclseg_trainer.unlabelled_data import HiddenCropSampler, find_images, read_images

NANO = VARIANTS["ccl-nano"]
QUICK = replace(
    PRETRAINING_RECIPE,
    steps=6, batch_size=2, crop_px=64, val_every=3, warmup_steps=2, pretrained=False,
)  # fmt: skip

SHORT = replace(QUICK, steps=2)
ONE_OF_EACH_ARCHITECTURE = {type(config): name for name, config in VARIANTS.items()}.values()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images without anything else."""
    return (
        write_dataset(tmp_path_factory.mktemp("plain") / "data", stems=("a", "b", "c")) / "images"
    )


def _validations(run, name):
    with (run / "metrics.csv").open() as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == f"val/{name}"]


def test_it_learns_what_is_hidden_and_does_not_collapse(folder, tmp_path):
    config = replace(QUICK, steps=60, val_every=30, batch_size=4, warmup_steps=10)
    result = pretrain([folder], NANO, config, tmp_path)
    before, _, after = _validations(tmp_path, "unexplained")
    assert after < 0.8 * before
    assert result.report["unexplained"] == pytest.approx(after)
    assert result.report["feature_std"] > 0.1
    assert result.report["feature_dimensions"] > 1.5
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {
        "best.pt", "last.pt", "config.json", "metrics.csv", "curves.png", "tensorboard",
    }  # fmt: skip


@pytest.mark.parametrize("variant", ["ccl-lite0", "unet-r18"])
def test_encoder_and_decoder_learn_at_any_stride(folder, tmp_path, variant):
    model = VARIANTS[variant]
    pretrain([folder], model, replace(QUICK, steps=1), tmp_path)
    weights = load_checkpoint(tmp_path / "last.pt").resume["model"]
    torch.manual_seed(QUICK.seed)
    painting = replace(model, num_classes=3 * model.output_stride**2)
    random = dict(initial_network(painting, QUICK, None).named_parameters())
    still = {name for name, value in random.items() if torch.equal(weights[name], value)}
    unused = {"edge_head.weight", "edge_head.bias"}
    # A gate that starts closed hides what stands before it from the first step.
    assert still - unused <= {n for n in random if ".query." in n or ".key." in n or ".gate." in n}


@pytest.mark.parametrize("variant", ONE_OF_EACH_ARCHITECTURE)
def test_every_architecture_can_paint_and_learns_all_of_it(variant):
    stride = VARIANTS[variant].output_stride
    network = build_model(variant, in_bands=2, num_classes=2 * stride**2).train()
    images, hidden = torch.randn(2, 2, 64, 64), torch.ones(2, 1, 2, 2, dtype=torch.bool)
    output = network(images)
    shares = [
        unexplained_share(torch.pixel_shuffle(scores, stride), images, hidden, torch.ones(2))
        for scores in (output.logits, output.coarse_logits)
    ]
    sum(shares).backward()
    without = {name for name, value in network.named_parameters() if value.grad is None}
    assert without == {"edge_head.weight", "edge_head.bias"}


def test_same_seed_gives_the_same_weights(folder, tmp_path):
    first, second = (
        load_checkpoint(pretrain([folder], NANO, SHORT, tmp_path / name).best).weights
        for name in "ab"
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(folder, tmp_path):
    whole = pretrain([folder], NANO, QUICK, tmp_path / "whole")
    code = (
        "import dataclasses, os, signal, sys\n"
        "from pathlib import Path\n"
        "from cclseg_trainer.config import PRETRAINING_RECIPE\n"
        "from cclseg_trainer.models import VARIANTS\n"
        "from cclseg_trainer.pretrain import pretrain\n"
        "class KillAtFive:\n"
        "    def on_step(self, step, steps, loss):\n"
        "        if step == 5:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "    def on_validation(self, step, report, *, is_best):\n"
        "        pass\n"
        "config = dataclasses.replace(PRETRAINING_RECIPE, steps=6, batch_size=2, crop_px=64,\n"
        "                             val_every=3, warmup_steps=2, pretrained=False)\n"
        "pretrain([Path(sys.argv[1])], VARIANTS['ccl-nano'], config, Path(sys.argv[2]),\n"
        "         progress=KillAtFive())\n"
    )
    words = [sys.executable, "-c", code, str(folder), str(tmp_path / "killed")]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "killed" / "last.pt").step == 3
    resumed = pretrain([folder], NANO, QUICK, tmp_path / "killed")
    for name in ("best.pt", "last.pt"):
        expected, found = (load_checkpoint(r.best.parent / name) for r in (whole, resumed))
        assert expected.step == found.step
        for key, value in expected.weights.items():
            torch.testing.assert_close(found.weights[key], value, rtol=0, atol=0)
    whole_csv, killed_csv = (tmp_path / name / "metrics.csv" for name in ("whole", "killed"))
    assert killed_csv.read_text() == whole_csv.read_text()


def test_training_takes_its_weights_over(folder, tiny_dataset, tmp_path):
    pretrained = pretrain([folder], NANO, SHORT, tmp_path / "first").best
    still = TrainConfig(
        steps=1, batch_size=2, crop_px=64, warmup_steps=0, lr=1e-12, pretrained=False
    )
    trained = train(tiny_dataset, NANO, still, tmp_path / "second", start=pretrained).best
    assert load_checkpoint(trained).spec.trained_on == (folder.name, tiny_dataset.root.name)
    before, after = (load_checkpoint(path).weights for path in (pretrained, trained))
    names = [name for name in before if name.endswith((".weight", ".bias"))]
    assert any(name.startswith("encoder.") for name in names)
    assert any(name.startswith("fusions.") for name in names)
    assert not any("_head." in name or name.startswith("head.2.") for name in names)
    for name in names:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)


def test_it_begins_where_an_earlier_run_ended(folder, tmp_path):
    first = pretrain([folder], NANO, SHORT, tmp_path / "first").best
    still = replace(QUICK, lr=1e-12, steps=1, warmup_steps=0)
    second = pretrain([folder], NANO, still, tmp_path / "second", start=first).best
    before, after = (load_checkpoint(path).weights for path in (first, second))
    for name in [name for name in before if name.endswith((".weight", ".bias"))]:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)


def test_what_it_made_segments_nothing_and_teaches_nobody(folder, tiny_dataset, tmp_path):
    pretrained = pretrain([folder], NANO, replace(QUICK, steps=1), tmp_path / "first").best
    with pytest.raises(BackendError, match="pretrained without labels and knows no classes yet"):
        load_checkpoint(pretrained).build()
    short = TrainConfig(steps=1, batch_size=2, crop_px=64, pretrained=False)
    with pytest.raises(InputError, match="has the classes none yet"):
        train(tiny_dataset, NANO, short, tmp_path / "second", teachers=[pretrained])
    with pytest.raises(InputError, match="the recipe is one of pretraining"):
        train(tiny_dataset, NANO, QUICK, tmp_path / "second")
    with pytest.raises(InputError, match="the recipe hides nothing"):
        pretrain([folder], NANO, short, tmp_path / "second")


def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(folder, tmp_path):
    with pytest.raises(TrainingError, match=r"bad_batch\.pt"):
        pretrain([folder], NANO, replace(QUICK, lr=1e30, warmup_steps=1), tmp_path)
    batch = torch.load(tmp_path / "bad_batch.pt", weights_only=True)
    assert batch["images"].shape == (2, 3, 64, 64)
    assert batch["hidden"].shape == (2, 1, 2, 2)


def test_another_recipe_does_not_continue_a_run(folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        pretrain([folder], NANO, QUICK, tmp_path, progress=StopAtFive())
    with pytest.raises(InputError, match=r"hidden was 0\.5, is 0\.6"):
        pretrain([folder], NANO, replace(QUICK, hidden=0.6), tmp_path)


def test_any_number_of_bands_and_indices_of_them(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    rng = np.random.default_rng(0)
    place = rasterio.Affine(0.1, 0, 0, 0, -0.1, 0)
    shape = {"height": 90, "width": 70, "count": 5, "dtype": "uint8"}
    with rasterio.open(tmp_path / "scene.tif", "w", driver="GTiff", transform=place, **shape) as f:
        f.write(rng.integers(0, 255, (5, 90, 70)).astype(np.uint8))
    words = f"{tmp_path / 'scene.tif'} -o {tmp_path / 'run'} --model ccl-nano --steps 1 --crop 64"
    words += " --batch-size 2 --bands red,green,blue,nir,edge --indices ndvi --fusion gather"
    done = CliRunner().invoke(pretrain_command, words.split(), catch_exceptions=False)
    assert done.exit_code == 0
    assert "of what is hidden is unexplained" in done.output
    checkpoint = load_checkpoint(tmp_path / "run" / "best.pt")
    assert checkpoint.model_config.encoder_bands == 6
    assert checkpoint.spec.bands == ("red", "green", "blue", "nir", "edge")
    assert checkpoint.weights["encoder.stem.0.0.weight"].shape[1] == 6


class TestImages:
    def test_of_a_dataset_those_to_learn_from(self, tmp_path):
        root = write_dataset(tmp_path / "data", stems=("a", "b", "c", "d", "u"))
        splits = {"train": ["a", "b"], "val": ["c"], "test": ["d"], "unlabelled": ["u"]}
        (root / "splits.json").write_text(json.dumps(splits))
        assert [path.stem for path in find_images([root])] == ["a", "b", "u"]
        assert [path.stem for path in find_images([root, root / "images"])] == [*"abucd"]
        (root / "images" / "u.png").unlink()
        with pytest.raises(InputError, match="names images that are not there: u"):
            find_images([root])
        (root / "splits.json").write_text(json.dumps({"val": ["c"], "test": ["d"]}))
        with pytest.raises(InputError, match="names no images in the splits train and unlabelled"):
            find_images([root])

    def test_nothing_there_is_said(self, tmp_path):
        with pytest.raises(InputError, match="no such file or folder"):
            find_images([tmp_path / "missing"])
        (tmp_path / "notes.txt").write_text("no image")
        for source in (tmp_path, tmp_path / "notes.txt"):
            with pytest.raises(InputError, match="holds no images; expected files that end with"):
                find_images([source])

    def test_all_that_is_wrong_is_told_at_once_and_nothing_written(self, tmp_path):
        images = {
            "a": np.zeros((96, 96, 3), np.uint8),
            "b": np.zeros((96, 96), np.uint8),
            "c": np.zeros((96, 30, 3), np.uint8),
            "d": np.zeros((96, 96, 3), np.uint16),
        }
        for stem, image in images.items():
            cv2.imwrite(str(tmp_path / f"{stem}.png"), image)
        (tmp_path / "e.png").write_bytes(b"no image")
        with pytest.raises(InputError, match="4 problems with 5 images") as caught:
            pretrain([tmp_path], NANO, QUICK, tmp_path / "run")
        text = str(caught.value)
        assert "b.png has 1 bands; the first image has 3" in text
        assert "c.png is 30 x 96 pixels; crops of this size need at least 40" in text
        assert "d.png is uint16; expected 8-bit images" in text
        assert "e.png" in text
        assert not (tmp_path / "run").exists()

    def test_photographs_are_red_green_blue(self, folder):
        (path, *_) = find_images([folder])
        (image,) = read_images([path], QUICK)
        np.testing.assert_array_equal(image, cv2.imread(str(path))[:, :, ::-1])


def test_half_of_the_squares_of_each_crop_are_hidden(folder):
    config = replace(QUICK, crop_px=128)
    batch = HiddenCropSampler(read_images(find_images([folder]), QUICK), config).batch(3)
    assert batch.images.shape == (2, 3, 128, 128)
    assert batch.hidden.shape == (2, 1, 4, 4)
    assert (batch.hidden.sum((1, 2, 3)) == 8).all()
    assert not torch.equal(batch.hidden[0], batch.hidden[1])


def test_images_count_by_their_size():
    dark, bright = np.zeros((64, 64, 1), np.uint8), np.full((64, 64 * 7, 1), 200, np.uint8)
    still = replace(QUICK.augment, photometric=0)
    sampler = HiddenCropSampler([dark, bright], replace(QUICK, augment=still))
    is_bright = [sampler.crop(step, 0)[0].mean() > 0 for step in range(200)]
    assert 0.8 < np.mean(is_bright) < 0.95


class TestUnexplainedShare:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    variance = torch.tensor([1.0, 4.0, 0.25])
    hidden = torch.tensor([[[[True, False], [False, False]]]]).expand(2, 1, 2, 2)

    def share(self, predicted, images=images):
        return unexplained_share(predicted, images, self.hidden, self.variance).item()

    def test_the_truth_leaves_nothing(self):
        assert self.share(self.images) == 0
        assert self.share(torch.nn.functional.avg_pool2d(self.images, 4)) == pytest.approx(0)

    def test_it_follows_its_formula(self):
        error = self.images[:, :, :32, :32].square().mean((0, 2, 3)) / self.variance
        assert self.share(torch.zeros_like(self.images)) == pytest.approx(error.mean().item())

    def test_what_is_seen_does_not_count(self):
        predicted = self.images.clone()
        predicted[:, :, 32:] += 100
        assert self.share(predicted) == 0

    def test_a_band_without_variance_stays_finite(self):
        flat = torch.zeros_like(self.images)
        assert np.isfinite(unexplained_share(flat + 1, flat, self.hidden, torch.zeros(3)).item())


def test_spread_counts_directions():
    generator = torch.Generator().manual_seed(0)
    free = torch.randn(4, 8, 16, 16, generator=generator)
    assert spread(free)["feature_dimensions"] == pytest.approx(8, rel=0.05)
    assert spread(free)["feature_std"] == pytest.approx(1, rel=0.05)
    line = free[:, :1] * torch.arange(1.0, 9.0)[:, None, None]
    assert spread(line)["feature_dimensions"] == pytest.approx(1, rel=1e-3)
    assert spread(torch.ones(2, 8, 4, 4)) == {"feature_std": 0.0, "feature_dimensions": 0.0}
