"""Losses: known values, ignored pixels, and descent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cclseg_trainer.config import LossConfig
from cclseg_trainer.losses import SegmentationLoss, class_weights
from cclseg_trainer.losses.balance import DynamicBalance
from cclseg_trainer.losses.edges import edge_loss
from cclseg_trainer.losses.heights import height_loss
from cclseg_trainer.losses.pixels import cross_entropy, focal_loss, hard_pixel_loss
from cclseg_trainer.losses.regions import dice_loss, lovasz_loss
from cclseg_trainer.losses.teaching import distillation_loss
from cclseg_trainer.losses.unlabelled import Surroundings, potential_loss, sparse_loss
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
    low, high = (edge_loss([logits], masks, ignore_index=255) for logits in (right, wrong))
    assert low < 0.05
    assert high > 1


def test_edges_of_all_levels_count_alike():
    masks = torch.zeros(1, 64, 64, dtype=torch.int64)
    masks[:, :, 32:] = 1
    masks[:, :, :3] = 255
    levels = [torch.randn(1, 1, side, side) for side in (16, 8, 4)]
    single = [edge_loss([level], masks, ignore_index=255) for level in levels]
    torch.testing.assert_close(edge_loss(levels, masks, ignore_index=255), sum(single) / 3)


def test_distillation_is_zero_for_equal_scores_only():
    logits = torch.randn(2, 3, 4, 4)
    assert distillation_loss(logits, logits) == pytest.approx(0, abs=1e-6)
    assert distillation_loss(logits, torch.randn(2, 3, 4, 4)) > 0


def _output(masks, classes=2):
    torch.manual_seed(0)
    batch, height, width = masks.shape
    return NetworkOutput(
        torch.randn(batch, classes, height // 4, width // 4, requires_grad=True),
        (torch.randn(batch, 1, height // 4, width // 4, requires_grad=True),),
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


class TestPixels:
    weights = torch.tensor([0.5, 1.0, 2.0])

    def test_focal_without_focus_is_the_cross_entropy(self):
        torch.manual_seed(0)
        logits, masks = torch.randn(2, 3, 5, 7), torch.randint(0, 3, (2, 5, 7))
        masks[0, :2] = 255
        found = focal_loss(logits, masks, self.weights, ignore_index=255, gamma=0)
        expected = cross_entropy(logits, masks, self.weights, ignore_index=255)
        assert found == pytest.approx(float(expected), rel=1e-5)

    def test_focal_follows_its_formula(self):
        logits = torch.tensor([[[[1.0]], [[0.0]], [[-1.0]]]])
        p = torch.softmax(logits.flatten(), 0)[1].item()
        found = focal_loss(logits, torch.tensor([[[1]]]), self.weights, ignore_index=255)
        assert found == pytest.approx(-((1 - p) ** 2) * np.log(p), rel=1e-5)

    def test_only_hard_pixels_count(self):
        # True classes get 0.9 on nine pixels and 0.2 on one: the hardest fifth are two pixels,
        # but a pixel of 0.9 is easy only if enough harder ones are there.
        sure = torch.full((1, 2, 1, 10), 0.0)
        sure[:, 0] = np.log(9.0)
        sure[:, 0, :, 0] = -np.log(4.0)
        masks = torch.zeros(1, 1, 10, dtype=torch.int64)
        found = hard_pixel_loss(sure, masks, torch.ones(2), ignore_index=255)
        expected = (-np.log(0.2) - 9 * np.log(0.9)) / 10  # ties with the second hardest all count
        assert found == pytest.approx(expected, rel=1e-4)
        sure[:, 0, :, 1:4] = 0.0  # three more hard ones, at 0.5: the nine-tenths are left out now
        found = hard_pixel_loss(sure, masks, torch.ones(2), ignore_index=255)
        assert found == pytest.approx((-np.log(0.2) - 3 * np.log(0.5)) / 4, rel=1e-4)

    @pytest.mark.parametrize("loss", [focal_loss, hard_pixel_loss])
    def test_nothing_labelled_is_no_loss(self, loss):
        logits = torch.randn(1, 3, 4, 4, requires_grad=True)
        value = loss(logits, torch.full((1, 4, 4), 255), self.weights, ignore_index=255)
        value.backward()
        assert value == 0
        assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("seed", range(4))
def test_lovasz_of_certain_predictions_is_one_minus_their_iou(seed):
    torch.manual_seed(seed)
    masks, guesses = torch.randint(0, 3, (2, 2, 6, 7))
    masks[0, 0] = 255
    labelled = masks != 255
    iou = [
        ((masks == k) & (guesses == k)).sum() / (labelled & ((masks == k) | (guesses == k))).sum()
        for k in masks[labelled].unique()
    ]
    found = lovasz_loss(_one_hot_logits(guesses, 3, scale=60.0), masks, ignore_index=255)
    assert found == pytest.approx(float(1 - torch.stack(iou).mean()), abs=1e-5)


def test_lovasz_descends_to_the_truth():
    torch.manual_seed(0)
    masks = torch.randint(0, 3, (1, 8, 8))
    logits = torch.zeros(1, 3, 8, 8, requires_grad=True)
    for _ in range(60):
        (gradient,) = torch.autograd.grad(lovasz_loss(logits, masks, ignore_index=255), logits)
        logits = (logits - 30 * gradient).detach().requires_grad_()
    assert (logits.argmax(1) == masks).float().mean() > 0.98


def _around(seed=0, size=(5, 6), labelled_rows=2):
    torch.manual_seed(seed)
    height, width = size
    unlabelled = torch.ones(2, height, width, dtype=torch.bool)
    unlabelled[:, :labelled_rows] = False
    return Surroundings(
        images=torch.rand(2, 3, height, width, dtype=torch.float64),
        edges=torch.rand(2, 1, height, width, dtype=torch.float64),
        unlabelled=unlabelled,
        segments=torch.randint(0, 4, (2, 2, height, width)),
    )


def _naive_potential(q, around):
    """The formula of the docstring, cell by cell."""
    scales = []
    for scale in range(around.segments.shape[1]):
        groups = {}
        for n, y, x in np.ndindex(*around.unlabelled.shape):
            groups.setdefault((n, int(around.segments[n, scale, y, x])), []).append((n, y, x))
        variances, terms = [], []
        for cells in groups.values():
            colours = np.array([around.images[n, :, y, x].numpy() for n, y, x in cells])
            variances.append(colours.var(axis=0).sum())
        usual = np.mean(variances)
        for cells, variance in zip(groups.values(), variances, strict=True):
            mean = np.mean([q[n, :, y, x] for n, y, x in cells], axis=0)
            edge = np.mean([around.edges[n, 0, y, x] for n, y, x in cells])
            count = sum(bool(around.unlabelled[cell]) for cell in cells)
            terms.append((count, np.exp(-variance / usual) * (1 - edge) * (1 - mean.max())))
        scales.append(sum(c * t for c, t in terms) / sum(c for c, _ in terms))
    weighted = total = 0.0
    images, edges = around.images.numpy(), around.edges.numpy()
    for step in ((1, 0), (0, 1)):
        pairs = []
        for n, y, x in np.ndindex(*around.unlabelled.shape):
            other = (n, y + step[0], x + step[1])
            if other[1] < q.shape[2] and other[2] < q.shape[3]:
                pairs.append(((n, y, x), other))
        squares = [
            ((images[a[0], :, a[1], a[2]] - images[b[0], :, b[1], b[2]]) ** 2).sum()
            for a, b in pairs
        ]
        for (a, b), square in zip(pairs, squares, strict=True):
            if not (around.unlabelled[a] or around.unlabelled[b]):
                continue
            edge = max(edges[a[0], 0, a[1], a[2]], edges[b[0], 0, b[1], b[2]])
            weight = (1 - edge) ** 2 * (np.exp(-square / (2 * np.mean(squares))) + 0.05)
            weighted += weight * (1 - q[a[0], :, a[1], a[2]] @ q[b[0], :, b[1], b[2]])
            total += weight
    return np.mean(scales) + weighted / total


class TestPotential:
    def test_it_follows_its_formula(self):
        around = _around()
        logits = torch.randn(2, 3, 5, 6, dtype=torch.float64)
        found = float(potential_loss(logits, around))
        assert found == pytest.approx(_naive_potential(logits.softmax(1).numpy(), around), rel=1e-9)

    def test_it_has_the_gradient_of_its_values(self):
        around = _around(size=(3, 4), labelled_rows=1)
        logits = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: potential_loss(x, around), logits)

    def test_what_is_labelled_altogether_has_none(self):
        around = _around(labelled_rows=5)
        assert potential_loss(torch.randn(2, 3, 5, 6, dtype=torch.float64), around) == 0

    def test_one_certain_class_everywhere_has_none(self):
        logits = torch.zeros(2, 3, 5, 6, dtype=torch.float64)
        logits[:, 1] = 60
        assert potential_loss(logits, _around()) == pytest.approx(0, abs=1e-9)

    def test_it_spreads_a_label_within_a_superpixel(self):
        """Two flat halves, one labelled cell in each: descent fills each half with its class."""
        images = torch.zeros(1, 3, 8, 8)
        images[..., 4:] = 1
        segments = (torch.arange(8) >= 4).long().expand(1, 1, 8, 8).contiguous()
        masks = torch.full((1, 8, 8), 255)
        masks[0, 3, 1], masks[0, 5, 6] = 0, 1
        around = Surroundings(images, torch.zeros(1, 1, 8, 8), masks == 255, segments)
        torch.manual_seed(0)
        logits = (0.01 * torch.randn(1, 2, 8, 8)).requires_grad_()
        for _ in range(200):
            loss = cross_entropy(logits, masks, torch.ones(2), ignore_index=255)
            loss = loss + potential_loss(logits, around)
            (gradient,) = torch.autograd.grad(loss, logits)
            logits = (logits - 5 * gradient).detach().requires_grad_()
        assert logits.argmax(1).tolist() == [[[0] * 4 + [1] * 4] * 8]


class TestSparse:
    def test_its_gradient_is_finite_where_all_places_are_alike(self):
        logits = torch.ones(1, 3, 6, 6, requires_grad=True)
        sparse_loss(logits).backward()
        assert torch.isfinite(logits.grad).all()

    def test_two_opposite_groups_cost_less_than_a_mixture(self):
        torch.manual_seed(0)
        groups = torch.ones(1, 2, 10, 10)
        groups[:, 0, :, 5:], groups[:, 1, :, :5] = -1, -1
        mixture = torch.randn(1, 2, 10, 10)
        assert sparse_loss(groups) < sparse_loss(mixture)

    def test_it_is_reproducible(self):
        logits = torch.randn(2, 3, 40, 40)
        values = []
        for _ in range(2):
            torch.manual_seed(7)
            values.append(float(sparse_loss(logits, sampled=50)))
        assert values[0] == values[1]


class TestDynamicBalance:
    def test_parts_that_fall_alike_weigh_alike(self):
        balance = DynamicBalance()
        for step in range(50):
            weights = balance.weights({"a": 3 * 0.98**step, "b": 0.1 * 0.98**step})
        assert weights == pytest.approx({"a": 1, "b": 1})

    def test_a_resumed_one_goes_on_alike(self):
        first, second = DynamicBalance(), DynamicBalance()
        for step in range(20):
            first.weights({"a": 1 / (step + 1), "b": 1.0})
        second.resume(first.state())
        assert first.weights({"a": 0.1, "b": 2.0}) == second.weights({"a": 0.1, "b": 2.0})

    def test_a_part_without_loss_is_no_trouble(self):
        assert DynamicBalance().weights({"a": 0.0, "b": 1.0})["a"] > 0


@pytest.mark.parametrize("part", ["focal", "ohem", "lovasz", "sparse", "potential"])
def test_every_part_counts_with_its_weight(part):
    masks = torch.randint(0, 2, (2, 64, 64))
    masks[:, 20:] = 255
    output = _output(masks)
    images, segments = torch.rand(2, 3, 64, 64), torch.randint(0, 9, (2, 2, 16, 16))

    def value(weight):
        torch.manual_seed(0)
        config = LossConfig(**{part: weight})
        loss = SegmentationLoss(torch.ones(2), ignore_index=255, config=config)
        return loss(output, masks, images=images, segments=segments).item()

    assert value(2.0) - value(1.0) == pytest.approx(value(1.0) - value(0.0), rel=1e-3)
    assert value(1.0) != value(0.0)


def test_height_loss_is_the_mean_error_of_known_cells():
    heights = torch.full((1, 8, 8), 5.0)
    heights[0, 0, 0] = float("nan")  # makes one of four cells unknown
    predicted = torch.full((1, 1, 2, 2), 7.0, requires_grad=True)
    loss = height_loss(predicted, heights)
    assert loss.item() == pytest.approx(2.0)
    loss.backward()
    assert predicted.grad.flatten().tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert height_loss(predicted, torch.full((1, 8, 8), float("nan"))).item() == 0
