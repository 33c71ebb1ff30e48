"""Sketch tokens: a vocabulary of contours, the maps of them, their loss, and runs that learn it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from interrupted import StopAtFive
from network_contract import checkpoint_of
from tiny_dataset import write_dataset
from torch import nn

from cclseg.dataset import Sample, open_dataset
from cclseg.errors import InputError
from cclseg_export.to_onnx import to_onnx
from cclseg_trainer.checkpoint import load_checkpoint
from cclseg_trainer.cli import train as train_command
from cclseg_trainer.config import LossConfig, TrainConfig
from cclseg_trainer.data import CropSampler
from cclseg_trainer.losses import SegmentationLoss
from cclseg_trainer.losses.tokens import UNKNOWN, token_loss
from cclseg_trainer.models import VARIANTS, NetworkOutput, build_model
from cclseg_trainer.sketch_tokens import REACH, learn_vocabulary
from cclseg_trainer.train import train

SIDE = 64
ANGLES = range(0, 360, 15)


def half_plane(degrees, *, shift_px=0.0):
    """A mask of two classes that meet in a line through the middle."""
    y, x = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    angle = np.radians(degrees)
    return (x * np.cos(angle) + y * np.sin(angle) > shift_px).astype(np.int64)


def corner():
    mask = np.zeros((SIDE, SIDE), np.int64)
    mask[: SIDE // 2, : SIDE // 2] = 1
    return mask


def learnt(count=8, seed=1):
    masks = [half_plane(degrees) for degrees in ANGLES] + [np.rot90(corner(), k) for k in range(4)]
    return learn_vocabulary(masks, count=count, ignore_index=255, seed=seed)


@pytest.fixture(scope="module")
def vocabulary():
    return learnt()


def _token(vocabulary, mask):
    """The one token along a straight contour, away from the rim."""
    inner = vocabulary.token_map(mask)[5:-5, 5:-5]
    tokens = np.unique(inner[inner > 0])
    assert len(tokens) == 1
    return int(tokens[0])


class TestVocabulary:
    def test_the_same_seed_learns_the_same_tokens(self, vocabulary):
        again = learnt()
        assert len(again) == len(vocabulary) == 8
        for mask in (half_plane(20), corner()):
            np.testing.assert_array_equal(again.token_map(mask), vocabulary.token_map(mask))

    def test_directions_have_tokens_of_their_own(self, vocabulary):
        directions = [_token(vocabulary, half_plane(degrees)) for degrees in (0, 45, 90, 135)]
        assert len(set(directions)) == 4

    def test_it_does_not_matter_which_class_is_on_which_side(self, vocabulary):
        mask = half_plane(60)
        np.testing.assert_array_equal(vocabulary.token_map(1 - mask), vocabulary.token_map(mask))

    def test_a_turned_mask_has_turned_places_and_other_tokens(self, vocabulary):
        mask = half_plane(0)
        upright, turned = vocabulary.token_map(mask), vocabulary.token_map(np.rot90(mask))
        np.testing.assert_array_equal(turned > 0, np.rot90(upright > 0))
        token, other = _token(vocabulary, mask), _token(vocabulary, np.rot90(mask))
        assert token != other
        # Turned once more, it is the first contour again with the sides exchanged.
        assert _token(vocabulary, np.rot90(mask, 2)) == token

    def test_a_shift_keeps_the_token(self, vocabulary):
        tokens = {_token(vocabulary, half_plane(90, shift_px=shift)) for shift in range(-4, 5)}
        assert len(tokens) == 1

    def test_contours_that_are_all_alike_make_fewer_tokens(self):
        found = learn_vocabulary([half_plane(0)] * 6, count=8, ignore_index=255, seed=1)
        assert 1 <= len(found) < 8

    def test_too_few_contours_are_refused(self):
        masks = [np.full((SIDE, SIDE), 255), np.zeros((SIDE, SIDE)), half_plane(0)]
        masks[2][::8, ::8] = 255  # so that no patch is labelled all over
        with pytest.raises(InputError, match=r"show 0 places .* at least 160 .* without --tokens"):
            learn_vocabulary(masks, count=16, ignore_index=255, seed=1)


class TestMap:
    def test_a_contour_marks_the_cells_that_it_touches(self, vocabulary):
        tokens = vocabulary.token_map(half_plane(0))  # between columns 31 and 32
        assert tokens.shape == (SIDE // 4, SIDE // 4)
        assert tokens.dtype == np.int64
        is_contour = np.zeros(tokens.shape, bool)
        is_contour[:, 7:9] = True
        np.testing.assert_array_equal(tokens > 0, is_contour)
        assert (tokens[~is_contour] == 0).all()

    def test_the_rim_of_a_mask_is_no_contour_and_contours_go_on_beyond_it(self, vocabulary):
        assert not vocabulary.token_map(np.ones((SIDE, SIDE), np.int64)).any()
        tokens = vocabulary.token_map(half_plane(0))[:, 7]
        assert (tokens == tokens[0]).all()

    def test_near_ignored_pixels_nothing_is_known(self, vocabulary):
        mask = half_plane(0)
        mask[:8] = 255
        tokens = vocabulary.token_map(mask)
        background = tokens[:, 2]
        assert (background[:2] == UNKNOWN).all()
        assert background[2] == UNKNOWN  # one pixel away
        assert (background[3:] == 0).all()
        contour = tokens[:, 7]
        last = (8 + REACH) // 4  # its patch reaches up to the ignored rows
        assert (contour[: last - 1] == UNKNOWN).all()
        assert (contour[last + 1 :] > 0).all()

    def test_a_class_beside_ignored_pixels_is_no_contour(self, vocabulary):
        mask = np.where(half_plane(0), 255, 1)
        assert set(np.unique(vocabulary.token_map(mask))) == {UNKNOWN, 0}

    def test_nothing_labelled_is_nothing_known(self, vocabulary):
        assert (vocabulary.token_map(np.full((SIDE, SIDE), 255)) == UNKNOWN).all()


class TestLoss:
    def test_classes_weigh_one_minus_their_share(self):
        logits = torch.randn(1, 3, 1, 4, generator=torch.Generator().manual_seed(0))
        tokens = torch.tensor([[[0, 0, 2, UNKNOWN]]])
        surprise = -logits.log_softmax(1)[0, :, 0]
        # two thirds are background, one third is token 2: weights 1/3, 1/3 and 2/3
        expected = (surprise[0, :2].sum() / 3 + surprise[2, 2] * 2 / 3) / (4 / 3)
        assert token_loss(logits, tokens) == pytest.approx(float(expected), rel=1e-5)

    @pytest.mark.parametrize("token", [UNKNOWN, 0])
    def test_where_nothing_can_be_told_apart_there_is_no_loss(self, token):
        logits = torch.randn(1, 3, 4, 4, requires_grad=True)
        loss = token_loss(logits, torch.full((1, 4, 4), token))
        loss.backward()
        assert loss == 0
        assert not logits.grad.any()

    def test_scores_of_another_resolution_are_fitted(self):
        assert token_loss(torch.zeros(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 1]] * 2])) > 0

    def test_it_falls_when_the_tokens_of_two_directions_are_learnt(self, vocabulary):
        masks = np.stack([half_plane(0), half_plane(90)])
        tokens = torch.from_numpy(np.stack([vocabulary.token_map(mask) for mask in masks]))
        images = torch.from_numpy(masks)[:, None].float()
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 8, 4, padding=2), nn.ReLU(), nn.Conv2d(8, len(vocabulary) + 1, 1)
        )
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.03)
        losses = []
        for _ in range(60):
            loss = token_loss(network(images), tokens)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.1 * losses[0]

    def test_the_potential_takes_its_boundaries_from_learnt_tokens(self):
        """No probability of background is one of a boundary, whatever the edge head says."""
        torch.manual_seed(0)
        sizes = {"images": (1, 3, 64, 64), "segments": (1, 2, 16, 16)}
        images, segments = torch.rand(sizes["images"]), torch.randint(0, 9, sizes["segments"])
        masks = torch.full((1, 64, 64), 255)
        only = {part: 0.0 for part in ("labels", "dice", "edge", "coarse")}
        logits = torch.randn(1, 2, 16, 16)

        def loss(edges, tokens, weight):
            output = NetworkOutput(logits, (edges,), logits, None, tokens)
            config = LossConfig(**only, potential=1.0, tokens=weight)
            function = SegmentationLoss(torch.ones(2), ignore_index=255, config=config)
            return float(function(output, masks, images=images, segments=segments))

        scores = torch.randn(1, 1, 16, 16)
        certain = torch.full((1, 1, 16, 16), -9.0)
        # softmax over (0, s) gives the second the probability sigmoid(s)
        tokens = torch.cat([torch.zeros_like(scores), scores], 1)
        assert loss(certain, tokens, 0.5) == pytest.approx(loss(scores, None, 0.5), rel=1e-5)
        assert loss(certain, tokens, 0.0) == pytest.approx(loss(certain, None, 0.0), rel=1e-5)


class TestHead:
    def test_it_is_there_on_request_and_in_training_only(self):
        images = torch.zeros(2, 3, 64, 64)
        assert build_model("ccl-nano", num_classes=3).train()(images).token_logits is None
        model = build_model("ccl-nano", num_classes=3, tokens=8)
        assert model.train()(images).token_logits.shape == (2, 9, 16, 16)
        assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 16, 16)

    @pytest.mark.slow
    def test_the_exported_file_is_the_same_without_it(self):
        without = build_model("ccl-nano", num_classes=3).eval()
        having = build_model("ccl-nano", num_classes=3, tokens=8).eval()
        missing, surplus = having.load_state_dict(without.state_dict(), strict=False)
        assert {name.split(".")[0] for name in missing} == {"token_head"}
        assert surplus == []
        files = [to_onnx(checkpoint_of(model)).SerializeToString() for model in (without, having)]
        assert files[0] == files[1]

    @pytest.mark.parametrize("tokens", [-1, 1, 65])
    def test_other_numbers_are_refused(self, tokens):
        with pytest.raises(InputError, match=f"tokens is {tokens}; expected 2 to 64"):
            build_model("ccl-nano", num_classes=3, tokens=tokens)


def _sampler(samples, **options):
    config = TrainConfig(crop_px=SIDE, batch_size=4, loss=LossConfig())
    return CropSampler(samples, ("a", "b"), ignore_index=255, config=config, **options)


class TestCrops:
    @pytest.fixture
    def samples(self):
        mask = np.kron(np.random.default_rng(0).integers(0, 2, (8, 8)), np.ones((24, 24)))
        mask = mask.astype(np.uint8)
        return [Sample("blocks", np.repeat(mask[:, :, None] * 200, 3, axis=2), mask)]

    def test_tokens_are_those_of_the_changed_crop(self, samples):
        sampler = _sampler(samples)
        assert sampler.batch(0).tokens is None
        sampler.learn_tokens(8)
        batch = sampler.batch(3)
        assert batch.tokens.shape == (4, SIDE // 4, SIDE // 4)
        masks = batch.masks.numpy()
        differs = np.zeros(masks.shape, bool)
        differs[:, :, 1:] = masks[:, :, 1:] != masks[:, :, :-1]
        touched = differs.reshape(4, SIDE // 4, 4, SIDE // 4, 4).any((2, 4))
        assert (batch.tokens.numpy()[touched] > 0).all()
        assert batch.tokens.max() <= 8

    def test_two_processes_learn_one_vocabulary_and_share_the_crops(self, samples):
        samplers = [
            _sampler(samples, share=share) for share in (np.s_[:], np.s_[0::2], np.s_[1::2])
        ]
        for sampler in samplers:
            sampler.learn_tokens(8)
        joint, first, second = (sampler.batch(5).tokens for sampler in samplers)
        torch.testing.assert_close(first, joint[0::2])
        torch.testing.assert_close(second, joint[1::2])


def test_a_stopped_run_learns_the_same_tokens_again_and_ends_alike(tiny_dataset, tmp_path):
    network = replace(VARIANTS["ccl-nano"], num_classes=3, tokens=8)
    config = TrainConfig(
        steps=6, batch_size=2, crop_px=64, val_every=3, warmup_steps=2, pretrained=False,
        loss=LossConfig(edge=0, potential=0.5),
    )  # fmt: skip
    whole = train(tiny_dataset, network, config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tiny_dataset, network, config, tmp_path / "stopped", progress=StopAtFive())
    resumed = train(tiny_dataset, network, config, tmp_path / "stopped")
    expected, found = (load_checkpoint(r.best.parent / "last.pt") for r in (whole, resumed))
    for name, value in expected.resume["model"].items():
        torch.testing.assert_close(found.resume["model"][name], value, rtol=0, atol=0)
    start = build_model(network).token_head.bias
    assert not torch.equal(expected.resume["model"]["token_head.bias"], start)
    figures = [(r.best.parent / "metrics.csv").read_text() for r in (whole, resumed)]
    assert figures[0] == figures[1]


def test_the_command_line_asks_for_them(tiny_dataset, tmp_path):
    options = "--model ccl-nano --tokens 4 --no-pretrained --steps 1 --batch-size 2 --crop 64"
    run = tmp_path / "run"
    result = CliRunner().invoke(
        train_command,
        [str(tiny_dataset.root), "-o", str(run), *options.split()],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    checkpoint = load_checkpoint(run / "best.pt")
    assert checkpoint.model_config.tokens == 4
    assert checkpoint.weights["token_head.weight"].shape[0] == 5


def test_data_without_contours_stop_before_anything_is_written(tmp_path):
    root = write_dataset(tmp_path / "data")
    for path in (root / "masks").iterdir():
        cv2.imwrite(str(path), np.ones((96, 128), np.uint8))
    network = replace(VARIANTS["ccl-nano"], tokens=16)
    config = TrainConfig(steps=1, batch_size=2, crop_px=64, pretrained=False)
    with pytest.raises(InputError, match="show 0 places where classes meet"):
        train(open_dataset(root), network, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
