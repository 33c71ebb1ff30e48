"""What each of two processes does that ``torchrun`` starts: ``joint_training.py DATA OUT``.

They run ``cclseg train``. Then the first process kills itself within a second run; torchrun starts
both anew, which go on with that run. Afterwards they train into a loss that is not finite, and
compare gradients with those of one process. In the end the first leaves without a word.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F

from cclseg.cli import app
from cclseg.dataset import open_dataset
from cclseg_trainer.config import LossConfig, TrainConfig
from cclseg_trainer.distributed import (
    LostProcessError,
    Ranks,
    join_ranks,
    naming_lost_processes,
)
from cclseg_trainer.losses import SegmentationLoss
from cclseg_trainer.losses.pixels import cross_entropy, hard_pixel_loss
from cclseg_trainer.losses.regions import dice_loss, lovasz_loss
from cclseg_trainer.models import VARIANTS, build_model
from cclseg_trainer.train import TrainingError, train

IS_FIRST_START = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
NANO = replace(VARIANTS["ccl-nano"], num_classes=3, tokens=4)
CONFIG = TrainConfig(
    steps=6,
    batch_size=4,
    unlabelled_crops=2,
    sure=0.1,
    crop_px=64,
    lr=1e-4,
    val_every=3,
    pretrained=False,
    loss=LossConfig(potential=0.5, sparse=0.1),
)
"""Every coupling of crops: dropout, norms, class weights, superpixels, sampling, tokens."""

RECIPE = """
steps = 6
batch_size = 4
unlabelled_crops = 2
sure = 0.1
crop_px = 64
lr = 1e-4
val_every = 3
pretrained = false

[model]
name = "ccl-nano"
tokens = 4

[loss]
potential = 0.5
sparse = 0.1
"""
"""The same for the command line."""


class _KilledOnce:
    def on_step(self, step, steps, loss):
        if step == 5 and IS_FIRST_START:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_validation(self, step, report, *, is_best):
        pass


class _LossOf64Bits(SegmentationLoss):
    """Parts whose sums, sorted places or means couple all crops; the usual loss has 32 bits."""

    def __call__(self, output, masks):
        logits = F.interpolate(output.logits, masks.shape[-2:], mode="bilinear")
        regions = sum(loss(logits, masks, ignore_index=255) for loss in (dice_loss, lovasz_loss))
        pixels = sum(
            loss(logits, masks, self._weights, ignore_index=255)
            for loss in (cross_entropy, hard_pixel_loss)
        )
        return regions + pixels  # nothing of the heads for edges, coarse scores and tokens


def compare_gradients(ranks):
    """Returns the largest differences of loss, gradients and buffers from those of one process."""
    torch.manual_seed(0)
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    masks = torch.randint(0, 3, (4, 64, 64))
    masks[0, :40] = 255  # the processes have different numbers of labelled pixels
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    start = build_model(NANO).double().train()
    outcomes = []
    for some in (Ranks(torch.device("cpu")), ranks):
        network = build_model(NANO).double().train()
        network.load_state_dict(start.state_dict())
        loss = _LossOf64Bits(weights, ignore_index=255, config=LossConfig(edge=0, coarse=0))
        objective = some.objective(network, loss)
        for step in range(2):
            torch.manual_seed(step)  # dropout
            network.zero_grad()
            value = objective(images[some.share], masks[some.share])
            value.backward()
        gradients = {name: weight.grad for name, weight in network.named_parameters()}
        outcomes.append((value, gradients, dict(network.named_buffers())))
    (one, one_gradients, one_buffers), (both, gradients, buffers) = outcomes
    return {
        "loss": abs(one.item() - both.item()),
        "gradients": _distance(one_gradients, gradients),
        "buffers": _distance(one_buffers, buffers),
        "without": sorted(name for name, gradient in gradients.items() if gradient is None),
    }


def _distance(expected, found):
    assert expected.keys() == found.keys()
    pairs = [(expected[name], found[name]) for name in expected]
    assert all((a is None) == (b is None) for a, b in pairs)
    return max((a - b).abs().max().item() for a, b in pairs if a is not None)


def main(data, out):
    """Leaves two finished runs, a broken one, and a JSON file of each process in ``out``."""
    if IS_FIRST_START:
        recipe = out / f"{os.environ['RANK']}.toml"
        recipe.write_text(RECIPE)
        arguments = ("train", data, "--recipe", recipe, "-o", out / "run")
        assert app.run([str(argument) for argument in arguments]) == app.DONE
    ranks = join_ranks()
    dataset = open_dataset(data)
    train(dataset, NANO, CONFIG, out / "killed", progress=_KilledOnce())
    try:
        train(dataset, NANO, replace(CONFIG, lr=1e30, warmup_steps=1), out / "broken")
    except TrainingError as error:
        stopped = str(error)
    told = {"stopped": stopped, "differences": compare_gradients(ranks), "lost": ""}
    if not ranks.is_first:
        told["lost"] = _waiting_for_nobody(ranks)
    (out / f"{ranks.own}.json").write_text(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)


def _waiting_for_nobody(ranks):
    """Returns the message of a process whose first one is gone."""
    try:
        with naming_lost_processes():
            ranks.told_by_first(lambda: None)
    except LostProcessError as error:
        return str(error)
    return "nothing was missed"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
