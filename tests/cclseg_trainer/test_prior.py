"""The prior: the theory's shift, chosen by validation alone."""

from __future__ import annotations

import pytest
import torch

from cclseg.spec import ModelSpec
from cclseg_trainer.checkpoint import Checkpoint
from cclseg_trainer.config import TrainConfig
from cclseg_trainer.models import build_model
from cclseg_trainer.prior import choose_prior


@pytest.fixture
def checkpoint():
    torch.manual_seed(0)
    model = build_model("ccl-nano", num_classes=3)
    spec = ModelSpec(name="ccl-nano", class_names=("a", "b", "c"))
    return Checkpoint(model.config, TrainConfig(), spec, model.state_dict(), 1, {})


@pytest.mark.parametrize("best", [0.0, 0.5, 1.0])
def test_the_strength_that_validates_best_is_taken(checkpoint, best):
    weights = torch.tensor([0.5, 1.0, 2.0])
    before = checkpoint.weights["head.2.bias"].clone()
    expected = before - best * torch.log(weights / weights.mean())

    def validate(model):
        return {"miou": 1 - float((model.head[2].bias.detach() - expected).abs().sum())}

    chosen = choose_prior(checkpoint, weights, validate)
    torch.testing.assert_close(chosen.weights["head.2.bias"], expected)
    torch.testing.assert_close(checkpoint.weights["head.2.bias"], before)  # left alone
    assert chosen.metrics["miou"] == pytest.approx(1, abs=1e-5)


def test_equal_weights_change_nothing(checkpoint):
    chosen = choose_prior(checkpoint, torch.ones(3), lambda _: {"miou": 0.5})
    assert torch.equal(chosen.weights["head.2.bias"], checkpoint.weights["head.2.bias"])
