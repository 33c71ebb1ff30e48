"""The prior: the theory's shift, chosen by validation alone."""

from __future__ import annotations

import pytest
import torch

from cclseg.dataset import Sample
from cclseg.spec import ModelSpec
from cclseg_trainer.checkpoint import Checkpoint
from cclseg_trainer.config import TrainConfig
from cclseg_trainer.models import build_model
from cclseg_trainer.prior import STRENGTHS, PriorTrial
from cclseg_trainer.train import validate

WEIGHTS = torch.tensor([0.5, 1.0, 2.0])


@pytest.fixture
def checkpoint(tiny_dataset):
    torch.manual_seed(0)
    model = build_model("ccl-nano", num_classes=3)
    spec = ModelSpec(
        name="ccl-nano",
        class_names=tiny_dataset.class_names,
        input_hw=(64, 64),
        output_stride=4,
        ignore_index=tiny_dataset.ignore_index,
    )
    return Checkpoint(model.config, TrainConfig(), spec, model.state_dict(), 1, {})


def tried(checkpoint, dataset, weights, **options):
    trial = PriorTrial(weights, checkpoint.spec, **options)
    validate(checkpoint.build(), checkpoint.spec, dataset, "val", keep=trial.update)
    return trial.applied_to(checkpoint)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_one_run_tells_what_the_shifted_network_does(checkpoint, tiny_dataset, strength):
    before = checkpoint.weights["head.2.bias"].clone()
    shifted = tried(checkpoint, tiny_dataset, WEIGHTS, strengths=[strength])
    expected = before - strength * torch.log(WEIGHTS / WEIGHTS.mean())
    torch.testing.assert_close(shifted.weights["head.2.bias"], expected)
    torch.testing.assert_close(checkpoint.weights["head.2.bias"], before)  # left alone
    measured = validate(shifted.build(), checkpoint.spec, tiny_dataset, "val")
    assert shifted.metrics["miou"] == pytest.approx(measured["miou"], abs=1e-3)  # near-ties


def test_the_strength_that_validates_best_is_taken(checkpoint, tiny_dataset):
    single = [tried(checkpoint, tiny_dataset, WEIGHTS, strengths=[s]) for s in STRENGTHS]
    best = max(single, key=lambda candidate: candidate.metrics["miou"])
    chosen = tried(checkpoint, tiny_dataset, WEIGHTS)
    assert chosen.metrics == best.metrics
    assert torch.equal(chosen.weights["head.2.bias"], best.weights["head.2.bias"])


def test_equal_weights_change_nothing(checkpoint, tiny_dataset):
    chosen = tried(checkpoint, tiny_dataset, torch.ones(3))
    assert torch.equal(chosen.weights["head.2.bias"], checkpoint.weights["head.2.bias"])


def test_without_a_label_nothing_is_shifted(checkpoint, tiny_dataset):
    trial = PriorTrial(WEIGHTS, checkpoint.spec)

    def unlabelled(sample, result):
        empty = Sample(
            stem=sample.stem, image=sample.image, mask=sample.mask * 0 + tiny_dataset.ignore_index
        )
        trial.update(empty, result)

    validate(checkpoint.build(), checkpoint.spec, tiny_dataset, "val", keep=unlabelled)
    chosen = trial.applied_to(checkpoint)
    assert torch.equal(chosen.weights["head.2.bias"], checkpoint.weights["head.2.bias"])
    assert chosen.metrics["miou"] is None
