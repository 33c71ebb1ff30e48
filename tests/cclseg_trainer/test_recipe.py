"""Recipes: what a file says is what a run gets, and what it cannot say is refused by name."""

import pytest
from click.testing import CliRunner

from cclseg.errors import InputError
from cclseg.spec import ModelSpec
from cclseg_trainer.checkpoint import Checkpoint, load_checkpoint
from cclseg_trainer.cli import train as train_verb
from cclseg_trainer.config import AugmentConfig, LossConfig, TrainConfig
from cclseg_trainer.models import build_model, find_variant
from cclseg_trainer.recipe import Recipe, read_recipe


@pytest.fixture
def recipe(tmp_path):
    def read(text):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return read_recipe(path)

    return read


def test_every_part_is_read(recipe):
    found = recipe(
        'lr = 1\nsteps = 7\nmax_minutes = 2.5\n[model]\nname = "ccl-nano"\nfusion = "plain"\n'
        "radii = [2, 1, 0]\n[augment]\nscale = [0.5, 2]\n[loss]\nlovasz = 1\ndynamic = true\n"
    )
    model = found.model
    assert (model.name, model.fusion, model.radii) == ("ccl-nano", "plain", (2, 1, 0))
    assert found.train == TrainConfig(
        lr=1.0,
        steps=7,
        max_minutes=2.5,
        augment=AugmentConfig(scale=(0.5, 2.0)),
        loss=LossConfig(lovasz=1.0, dynamic=True),
    )
    assert type(found.train.lr) is float


def test_an_empty_one_is_the_default(recipe):
    assert recipe("") == Recipe(None, TrainConfig())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", r"there is no 'stepz'; did you mean 'steps'"),
        ("steps = 2.5", r"steps is 2\.5; expected a whole number"),
        ("steps = true", r"steps is True; expected a whole number"),
        ('lr = "high"', r"lr is 'high'; expected a number"),
        ("[loss]\ndynamic = 1", r"\[loss\]: dynamic is 1; expected true or false"),
        ("[augment]\nscale = [1, 2, 3]", r"scale is \[1, 2, 3\]; expected a list of 2 values"),
        ("augment = 3", r"'augment' is 3; expected a table \[augment\]"),
        ('[model]\nfusion = "gate"', r"\[model\] has no name"),
        ('[model]\nname = "ccl-nano"\nfusion = "gatter"', r"expected 'plain' or 'gate' or"),
        ('[model]\nname = "ccl-nanu"', r"did you mean 'ccl-nano'"),
        ("steps = ", "is no TOML file"),
        ("crop_px = 100", "crop_px is 100; expected a multiple of 32"),
    ],
)
def test_what_cannot_be_is_refused_by_name(recipe, text, message):
    with pytest.raises(InputError, match=message):
        recipe(text)


def test_a_run_can_be_repeated_from_its_checkpoint(tmp_path):
    config = TrainConfig(steps=5, loss=LossConfig(focal=0.5))
    network = find_variant("ccl-nano")
    spec = ModelSpec(name="ccl-nano", class_names=("a", "b"))
    weights = build_model(network).state_dict()
    Checkpoint(network, config, spec, weights, 5, {}).save(tmp_path / "best.pt")
    assert read_recipe(tmp_path / "best.pt") == Recipe(network, config)


def test_a_missing_file_is_an_error_of_input(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_recipe(tmp_path / "none.toml")


def test_options_take_the_place_of_what_a_recipe_says(tiny_dataset, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "steps = 9\nbatch_size = 2\ncrop_px = 64\npretrained = false\n[loss]\nlovasz = 0.5\n"
        '[model]\nname = "ccl-nano"\nfusion = "plain"\n'
    )
    words = [str(tiny_dataset.root), "--recipe", str(recipe), "--steps", "2", "-o"]
    result = CliRunner().invoke(train_verb, [*words, str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    trained = load_checkpoint(tmp_path / "run" / "best.pt")
    assert (trained.train_config.steps, trained.train_config.loss.lovasz) == (2, 0.5)
    assert (trained.model_config.name, trained.model_config.fusion) == ("ccl-nano", "plain")
