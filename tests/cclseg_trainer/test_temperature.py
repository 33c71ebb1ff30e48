"""A temperature makes confidence honest and changes no decision."""

import numpy as np
import pytest
import torch

from cclseg.metrics import Calibration
from cclseg.spec import ModelSpec
from cclseg_trainer.checkpoint import Checkpoint
from cclseg_trainer.config import TrainConfig
from cclseg_trainer.models import build_model
from cclseg_trainer.temperature import TEMPERATURES, best_temperature, with_temperature

STEP = TEMPERATURES[1] / TEMPERATURES[0]


def _overconfident(temperature, *, stride=4, seed=0):
    """Labels drawn from known probabilities, and scores that exaggerate them."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 1.5, (3, 60, 70)).astype(np.float32)
    chances = np.exp(honest) / np.exp(honest).sum(axis=0)
    draws = rng.random((60, 70))
    label = (draws > chances.cumsum(axis=0)).sum(axis=0).clip(0, 2).astype(np.uint8)
    return honest * temperature, label.repeat(stride, 0).repeat(stride, 1)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
def test_it_is_found_again(temperature):
    scored = [_overconfident(temperature, seed=seed) for seed in range(4)]
    found = best_temperature(scored, stride=4, ignore_index=255)
    assert temperature / STEP**2 <= found <= temperature * STEP**2


def test_without_labels_nothing_changes():
    logits, mask = _overconfident(2.0)
    mask[:] = 255
    assert best_temperature([(logits, mask)], stride=4, ignore_index=255) == 1


def test_calibration_error_falls():
    logits, mask = _overconfident(2.5)
    errors = []
    for temperature in (1.0, best_temperature([(logits, mask)], stride=4, ignore_index=255)):
        scores = np.exp(logits / temperature)
        calibration = Calibration()
        ids = logits.argmax(axis=0).astype(np.uint8)
        calibration.update(ids, (scores / scores.sum(axis=0)).max(axis=0), mask[::4, ::4])
        errors.append(calibration.error)
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("variant", ["ccl-nano", "unet-r18", "linknet-r18"])
def test_the_network_divides_its_scores(variant):
    model = build_model(variant, num_classes=3).eval()
    spec = ModelSpec(name=variant, class_names=("a", "b", "c"))
    checkpoint = Checkpoint(model.config, TrainConfig(), spec, model.state_dict(), 1, {})
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = checkpoint.build()(images)
        after = with_temperature(checkpoint, 1.7).build()(images)
    torch.testing.assert_close(after * 1.7, before, rtol=1e-4, atol=1e-5)
