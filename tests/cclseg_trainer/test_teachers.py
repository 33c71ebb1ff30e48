"""Teachers: one gives its scores, several the mean of their opinions; strangers are refused."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from cclseg.errors import InputError
from cclseg.spec import ModelSpec
from cclseg_trainer.checkpoint import Checkpoint, load_checkpoint
from cclseg_trainer.cli import train as train_command
from cclseg_trainer.config import QUANTIZED_RECIPE, TrainConfig
from cclseg_trainer.losses import ensemble_logits
from cclseg_trainer.losses.teaching import distillation_loss
from cclseg_trainer.models import VARIANTS, build_model
from cclseg_trainer.teachers import Teachers, load_teachers
from cclseg_trainer.train import train
from cclseg_trainer.weights import to_device

NANO = replace(VARIANTS["ccl-nano"], num_classes=3)
UNET = replace(VARIANTS["unet-lite0"], num_classes=3)
SPEC = ModelSpec(name="ccl-nano", class_names=("red", "green", "blue"))
QUICK = TrainConfig(
    steps=4, batch_size=2, crop_px=64, val_every=2, warmup_steps=2, pretrained=False
)


def _checkpoint(seed, config=NANO, spec=SPEC):
    torch.manual_seed(seed)
    network = build_model(config)
    with torch.no_grad():  # scores of a trained network are far apart
        for parameter in network.head[-1].parameters():
            parameter.mul_(8)
    return Checkpoint(config, QUICK, spec, network.state_dict(), 1, {})


def _teachers(*checkpoints, stride=4):
    return Teachers(checkpoints, output_stride=stride, device=torch.device("cpu"))


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_one_teacher_gives_its_own_scores(images):
    teacher = _checkpoint(1)
    with torch.no_grad():
        expected = to_device(teacher.build(), torch.device("cpu"))(images)
    torch.testing.assert_close(_teachers(teacher).logits(images), expected, rtol=0, atol=0)
    assert _teachers().logits(images) is None


def test_two_equal_teachers_teach_what_one_does(images):
    teacher = _checkpoint(1)
    alone, twice = (_teachers(*count).logits(images) for count in ([teacher], [teacher] * 2))
    torch.testing.assert_close(twice, alone, rtol=0, atol=1e-5)


def test_several_teachers_are_averaged_as_by_hand():
    scores = torch.tensor([[4.0, 0.0, -4.0], [0.0, 2.0, 0.0], [-2.0, 6.0, 1.0]])
    softened = [torch.exp(s / 2) / torch.exp(s / 2).sum() for s in scores]
    expected = (softened[0] + softened[1] + softened[2]) / 3
    together = ensemble_logits(scores[:, None, :, None, None])
    torch.testing.assert_close((together[0, :, 0, 0] / 2).softmax(0), expected)


def test_a_student_is_drawn_to_the_mean_of_the_probabilities():
    """The divergence from the mean has the gradient of the mean of the divergences."""
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(3, 2, 5, 4, 6, generator=generator)
    student = torch.randn(2, 5, 4, 6, generator=generator, requires_grad=True)
    each = torch.stack([distillation_loss(student, teacher) for teacher in scores]).mean()
    mean = distillation_loss(student, ensemble_logits(scores))
    expected, found = (torch.autograd.grad(loss, student)[0] for loss in (each, mean))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_scores_far_apart_stay_finite():
    scores = torch.tensor([[900.0, -900.0], [-900.0, 900.0]])[:, None, :, None, None]
    assert torch.isfinite(ensemble_logits(scores)).all()


def test_teachers_of_several_strides_meet_at_that_of_the_student(images):
    fine, coarse = _checkpoint(1, UNET), _checkpoint(2)
    with torch.no_grad():
        every_pixel, every_fourth = (c.build()(images) for c in (fine, coarse))
        lowered = F.interpolate(every_pixel, (16, 24), mode="bilinear", align_corners=False)
        raised = F.interpolate(every_fourth, (64, 96), mode="bilinear", align_corners=False)
    for stride, expected in (
        (4, torch.stack([lowered, every_fourth])),
        (1, torch.stack([every_pixel, raised])),
    ):
        found = _teachers(fine, coarse, stride=stride).logits(images)
        torch.testing.assert_close(found, ensemble_logits(expected))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"class_names": ("green", "red", "blue")},
            "classes green, red, blue, .* red, green, blue",
        ),
        ({"bands": ("nir", "red", "green")}, "bands nir, red, green, .* red, green, blue"),
        ({"mean": (0.0, 0.0, 0.0)}, r"means 0\.0, 0\.0, 0\.0, .* 127\.0"),
        ({"std": (1.0, 1.0, 1.0)}, r"deviations 1\.0, 1\.0, 1\.0, .* 128\.0"),
    ],
)
def test_a_teacher_of_another_kind_is_refused(tmp_path, changes, message):
    path = tmp_path / "teacher.pt"
    _checkpoint(1, spec=dataclasses.replace(SPEC, **changes)).save(path)
    with pytest.raises(InputError, match=message):
        load_teachers([path], SPEC)


def test_bands_that_nobody_named_may_be_any(tmp_path):
    path = tmp_path / "teacher.pt"
    _checkpoint(1, spec=replace(SPEC, bands=("band1", "band2", "band3"))).save(path)
    assert len(load_teachers([path], SPEC)) == 1


def test_a_run_refuses_a_stranger_before_it_writes_anything(tiny_dataset, tmp_path):
    stranger = tmp_path / "stranger.pt"
    _checkpoint(1, spec=replace(SPEC, class_names=("x", "y", "z"))).save(stranger)
    with pytest.raises(InputError, match="x, y, z"):
        train(tiny_dataset, NANO, QUICK, tmp_path / "run", teachers=[stranger])
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_several(tiny_dataset, tmp_path):
    options = "--model ccl-nano --no-pretrained --steps 2 --batch-size 2 --crop 64"

    def weights(name, *teachers):
        words = [str(tiny_dataset.root), "-o", str(tmp_path / name), *options.split()]
        for teacher in teachers:
            words += ["--teacher", str(tmp_path / f"{teacher}.pt")]
        assert CliRunner().invoke(train_command, words, catch_exceptions=False).exit_code == 0
        return load_checkpoint(tmp_path / name / "last.pt").resume["model"]["head.2.bias"]

    for seed in (1, 2):
        _checkpoint(seed).save(tmp_path / f"{seed}.pt")
    one, both, again = weights("a", 1), weights("b", 1, 2), weights("c", 1, 2)
    assert torch.equal(both, again)
    assert not torch.equal(one, both)


def test_a_quantised_network_learns_the_scores_of_several(tiny_dataset, tmp_path):
    origin = train(tiny_dataset, NANO, QUICK, tmp_path / "origin").best
    config = replace(QUANTIZED_RECIPE, steps=2, batch_size=2, crop_px=64, val_every=1)

    def last(name, *teachers):
        train(tiny_dataset, NANO, config, tmp_path / name, start=origin, teachers=teachers)
        return load_checkpoint(tmp_path / name / "last.pt").resume["model"]

    of_itself, of_two = last("a"), last("b", origin, origin)
    for name, value in of_itself.items():
        torch.testing.assert_close(of_two[name], value, rtol=0, atol=1e-4)
