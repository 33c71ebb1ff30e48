"""Images without labels: cropped beside the others, and labelled by the weight average."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_dataset import write_dataset

from cclseg.dataset import UNLABELLED, Sample, open_dataset
from cclseg.errors import DatasetError
from cclseg_trainer.checkpoint import load_checkpoint
from cclseg_trainer.config import AugmentConfig, TrainConfig
from cclseg_trainer.data import CropSampler
from cclseg_trainer.models import VARIANTS
from cclseg_trainer.train import train

CONFIG = TrainConfig(
    steps=4, batch_size=2, unlabelled_crops=3, crop_px=64, val_every=2, pretrained=False
)


@pytest.fixture
def dataset(tmp_path):
    """Four labelled images and two without masks."""
    root = write_dataset(tmp_path / "data", stems=("a", "b", "c", "d", "u", "v"))
    splits = {"train": ["a", "b"], "val": ["c"], "test": ["d"], UNLABELLED: ["u", "v"]}
    (root / "splits.json").write_text(json.dumps(splits))
    for stem in splits[UNLABELLED]:
        (root / "masks" / f"{stem}.png").unlink()
    return open_dataset(root)


def _sampler(config=CONFIG):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (80, 90, 3), np.uint8)
    sample = Sample("a", image, rng.integers(0, 3, (80, 90)).astype(np.uint8))
    return CropSampler(
        [sample], ("x", "y", "z"), ignore_index=255, config=config, unlabelled=[image]
    )


def test_the_last_crops_of_a_batch_have_no_labels():
    batch = _sampler().batch(0)
    assert batch.images.shape == (5, 3, 64, 64)
    assert batch.plain.shape == (3, 3, 64, 64)
    assert (batch.masks[-3:] == 255).all()
    assert (batch.masks[:2] != 255).any()


def test_the_teacher_sees_them_before_their_colours_change():
    still = AugmentConfig(photometric=0, blur_share=0, noise_share=0)
    batch = _sampler(replace(CONFIG, augment=still)).batch(0)
    torch.testing.assert_close(batch.images[-3:], batch.plain)
    changed = _sampler().batch(0)
    assert (changed.images[-3:] - changed.plain).abs().max() > 0.05
    torch.testing.assert_close(changed.plain, batch.plain)  # the same places


def test_the_labelled_crops_are_those_of_a_run_without(dataset):
    alone = _sampler(replace(CONFIG, unlabelled_crops=0)).batch(3)
    torch.testing.assert_close(_sampler().batch(3).images[:2], alone.images)


def test_a_run_learns_from_them_and_is_reproducible(dataset, tmp_path):
    """A teacher that is always sure labels everything; one that never is, nothing."""

    def weights(name, **changes):
        result = train(dataset, VARIANTS["ccl-nano"], replace(CONFIG, **changes), tmp_path / name)
        return load_checkpoint(result.best.parent / "last.pt").resume["model"]

    first, again, never = weights("a", sure=0.1), weights("b", sure=0.1), weights("c", sure=1.0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], never[name]) for name in first)


def test_their_files_are_checked_before_the_work(dataset, tmp_path):
    (dataset.root / "images" / "u.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"u\.png"):
        train(dataset, VARIANTS["ccl-nano"], CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_such_a_split_says_so(tiny_dataset, tmp_path):
    with pytest.raises(DatasetError, match="no images in a split 'unlabelled'"):
        train(tiny_dataset, VARIANTS["ccl-nano"], CONFIG, tmp_path / "run")
