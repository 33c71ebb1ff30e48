"""Losses: known values, ignored pixels, and descent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cclseg_trainer.config import LossConfig
from cclseg_trainer.losses import (
    SegmentationLoss,
    class_weights,
    dice_loss,
    distillation_loss,
    edge_loss,
    height_loss,
)
from cclseg_trainer.models import NetworkOutput


def _one_hot_logits(masks, classes, scale=30.0):
    return scale * torch.nn.functional.one_hot(masks, classes).movedim(-1, 1).float()


def test_class_weights_follow_the_formula():
    weights = class_weights(np.array([0.9, 0.1]))
    raw = 1 / np.log(1.02 + np.array([0.9, 0.1]))
    np.testing.assert_allclose(weights.numpy(), raw / raw.mean(), rtol=1e-6)


def test_dice_is_zero_for_the_truth_and_one_for_its_opposite():
    masks = torch.tensor([[[0, 1], [1, 0]]])
    assert dice_loss(_one_hot_logits(masks, 2), masks, ignore_index=255) == pytest.approx(0)
    assert dice_loss(_one_hot_logits(1 - masks, 2), masks, ignore_index=255) == pytest.approx(1)


def test_dice_of_half_right():
    # class 0 occurs at two of four pixels and is found everywhere: Dice_0 = 2*2/(4+2), Dice_1 = 0
    masks = torch.tensor([[[0, 1], [1, 0]]])
    found = _one_hot_logits(torch.zeros_like(masks), 2)
    expected = 1 - (2 * 2 / 6 + 0) / 2
    assert dice_loss(found, masks, ignore_index=255) == pytest.approx(expected)


def test_edge_loss_prefers_the_true_boundary():
    masks = torch.zeros(1, 64, 64, dtype=torch.int64)
    masks[:, :, 32:] = 1
    right = torch.full((1, 1, 16, 16), -8.0)
    right[..., 7:9] = 8  # cells of columns 28..35, which hold the boundary and its neighbours
    wrong = torch.full((1, 1, 16, 16), -8.0)
    wrong[..., 2:4] = 8
    low, high = (edge_loss(logits, masks, ignore_index=255) for logits in (right, wrong))
    assert low < 0.05
    assert high > 1


def test_distillation_is_zero_for_equal_scores_only():
    logits = torch.randn(2, 3, 4, 4)
    assert distillation_loss(logits, logits) == pytest.approx(0, abs=1e-6)
    assert distillation_loss(logits, torch.randn(2, 3, 4, 4)) > 0


def _output(masks, classes=2):
    torch.manual_seed(0)
    batch, height, width = masks.shape
    return NetworkOutput(
        torch.randn(batch, classes, height // 4, width // 4, requires_grad=True),
        torch.randn(batch, 1, height // 4, width // 4, requires_grad=True),
        torch.randn(batch, classes, height // 16, width // 16, requires_grad=True),
    )


def test_ignored_pixels_change_nothing():
    masks = torch.randint(0, 2, (1, 64, 64))
    masks[:, :32] = 255
    output = _output(masks)
    loss_function = SegmentationLoss(torch.ones(2), ignore_index=255, config=LossConfig(edge=0))
    loss_function(output, masks).backward()
    # Rows more than the interpolation's reach inside the ignored half get no gradient.
    assert output.logits.grad[:, :, :7].abs().max() == 0
    assert output.logits.grad[:, :, 8:].abs().max() > 0


def test_an_entirely_ignored_batch_gives_a_finite_loss():
    masks = torch.full((1, 64, 64), 255)
    output = _output(masks)
    loss = SegmentationLoss(torch.ones(2), ignore_index=255, config=LossConfig())(output, masks)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(output.logits.grad).all()


def test_height_loss_is_the_mean_error_of_known_cells():
    heights = torch.full((1, 8, 8), 5.0)
    heights[0, 0, 0] = float("nan")  # makes one of four cells unknown
    predicted = torch.full((1, 1, 2, 2), 7.0, requires_grad=True)
    loss = height_loss(predicted, heights)
    assert loss.item() == pytest.approx(2.0)
    loss.backward()
    assert predicted.grad.flatten().tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert height_loss(predicted, torch.full((1, 8, 8), float("nan"))).item() == 0
