"""The learning-rate finder: where learning breaks, and a rate well below."""

import csv
import math

import numpy as np
import pytest
from click.testing import CliRunner

from cclseg_trainer.cli import train as train_command
from cclseg_trainer.lr_range import evaluated, has_diverged
from cclseg_trainer.train import TrainingError

RATES = np.geomspace(1e-5, 1, 80)


def valley(*, lowest, noise=0.0, seed=0):
    """Losses that fall from 3 to 1 at a rate, and rise behind it."""
    decades = np.log10(RATES / lowest)
    losses = 3 - 2 * np.exp(-0.5 * (decades / 0.8) ** 2)
    return losses * np.exp(np.random.default_rng(seed).normal(0, noise, len(RATES)))


def test_the_suggestion_is_a_fifth_of_the_rate_at_which_nearly_all_of_the_fall_is_done():
    losses = np.interp(np.log10(RATES), [-4, -2, -1], [3.0, 1.0, 1.0])
    found = evaluated(RATES, losses, diverged=False)
    assert found.edge == pytest.approx(10**-2.2, rel=0.2)
    assert found.suggested == pytest.approx(found.edge / 5, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_noise_moves_the_suggestion_little(seed):
    found = evaluated(RATES, valley(lowest=1e-2, noise=0.15, seed=seed), diverged=False)
    exact = evaluated(RATES, valley(lowest=1e-2), diverged=False).suggested
    assert exact / 2 < found.suggested < 2 * exact


@pytest.mark.parametrize("losses", [np.full(80, 2.0), np.linspace(1, 3, 80)])
def test_losses_that_fall_nowhere_are_an_error(losses):
    with pytest.raises(TrainingError, match=r"falls at no rate from 1e-05 to 1e\+00"):
        evaluated(RATES, losses, diverged=True)


def test_learning_is_broken_where_the_loss_is_above_that_of_the_beginning():
    assert not has_diverged([3.0] * 20)
    assert not has_diverged([3.0] * 10 + [1.0] * 10 + [30.0])  # one bad batch among good ones
    assert has_diverged([3.0] * 10 + [1.0] * 10 + [4.0] * 6)
    assert has_diverged([3.0, math.nan])
    assert has_diverged([math.inf])


def test_the_command_finds_where_learning_breaks_and_suggests_less(tiny_dataset, tmp_path):
    run = tmp_path / "run"
    options = "--model ccl-nano --no-pretrained --batch-size 2 --crop 64 --find-lr"
    done = CliRunner().invoke(
        train_command,
        [str(tiny_dataset.root), "-o", str(run), *options.split()],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    assert {path.name for path in run.iterdir()} == {"lr_range.csv", "lr_range.png"}
    with (run / "lr_range.csv").open() as file:
        rates = [float(row["rate"]) for row in csv.DictReader(file)]
    suggested = float(done.stdout.split("--lr ")[1].split()[0])
    assert rates[0] < suggested < rates[-1] / 5
    assert rates[-1] < 10  # it ends where learning breaks, short of the highest rate
    assert (run / "lr_range.png").read_bytes().startswith(b"\x89PNG")
