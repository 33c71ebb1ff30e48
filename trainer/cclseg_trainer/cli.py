"""The verbs ``train`` and ``pretrain``. Light to import: torch is loaded when a verb runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .model_config import INDEX_NAMES, SWITCHES, choices_of

if TYPE_CHECKING:
    from .config import TrainConfig
    from .model_config import ModelConfig

_DEFAULT_VARIANT = "ccl-lite0"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _switches(command: _Command) -> _Command:
    """Gives a command one option per choice in the shape of a CCL network."""
    for name, purpose in reversed(SWITCHES.items()):
        option = click.option(
            f"--{name.replace('_', '-')}", type=click.Choice(choices_of(name)), help=purpose
        )
        command = option(command)
    return command


def _names(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """Splits "red,green,blue"."""
    return tuple(name.strip() for name in value.split(",")) if value else None


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", "variant", help="Network variant (default: ccl-lite0).")
@click.option(
    "-o", "--out", "run", type=click.Path(path_type=Path), required=True, help="Folder of the run."
)
@click.option(
    "--recipe",
    "recipe_file",
    type=click.Path(path_type=Path),
    help="TOML file with any field of the configuration, or a checkpoint to train like.",
)
@click.option("--steps", type=int, help="Optimiser steps (default: those of the recipe).")
@click.option("--max-minutes", type=float, help="Fit the schedule to this time.")
@click.option("--batch-size", type=int, help="Crops per step.")
@click.option("--crop", "crop_px", type=int, help="Crop size in pixels, a multiple of 32.")
@click.option("--lr", type=float, help="Peak learning rate of the decoder.")
@click.option("--seed", type=int, help="Seed of everything random.")
@click.option("--val-every", type=int, help="Steps between validations.")
@click.option("--virtual-share", type=float, help="Share of crops from the virtual flight.")
@click.option(
    "--unlabelled-crops", type=int, help='Crops per step from the images of the split "unlabelled".'
)
@_switches
@click.option(
    "--bands", "band_names", callback=_names, help="Names of the bands: red,green,blue,nir."
)
@click.option(
    "--indices", callback=_names, help=f"Indices computed from the bands: {','.join(INDEX_NAMES)}."
)
@click.option(
    "--height-head",
    is_flag=True,
    default=None,
    help="Learn heights/<stem>.tif beside the classes; no part of the exported network.",
)
@click.option(
    "--edge-levels",
    type=int,
    help="Decoded maps that learn where classes meet, 1 to 3; no part of the exported network.",
)
@click.option(
    "--tokens",
    type=int,
    help="Kinds of contours to learn beside the classes, 2 to 64; no part of the exported network.",
)
@click.option("--no-pretrained", is_flag=True, help="Start from random weights.")
@click.option("--start", type=click.Path(path_type=Path), help="Checkpoint to begin from.")
@click.option(
    "--quantize", is_flag=True, help="Train the network of --start with the rounding of INT8."
)
@click.option(
    "--teacher",
    "teachers",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Checkpoint whose soft labels are learnt; given several times, the mean of theirs.",
)
@click.option(
    "--find-lr", is_flag=True, help="Try growing learning rates instead, and suggest one for --lr."
)
def train(data: Path, run: Path, *, find_lr: bool, **options: Any) -> None:
    """Train a network on the dataset folder DATA.

    The folder holds images/, masks/, classes.json and splits.json. Training uses the split
    "train" and keeps the weights that do best on "val". Started again, a run resumes.

    Options take the place of what a recipe says.
    """
    from cclseg.dataset import open_dataset

    from .distributed import join_ranks
    from .lr_range import find_learning_rate
    from .progress import TrainingDisplay
    from .train import train as run_training

    model_config, config, files = asked_for(**options)
    ranks = join_ranks()
    if find_lr:
        found = find_learning_rate(open_dataset(data), model_config, config, run, **files)
        if ranks.is_first:
            click.echo(f"the loss has fallen at a rate of {found.edge:.2g}: {run / 'lr_range.png'}")
            click.echo(f"next: the same command with --lr {found.suggested:g} for --find-lr")
        return
    with TrainingDisplay(is_shown=ranks.is_first) as display:
        result = run_training(
            open_dataset(data), model_config, config, run, **files, progress=display
        )
    if not ranks.is_first:
        return
    miou = result.report["miou"]
    click.echo(f"best validation mIoU {miou:.3f} at step {result.step}: {result.best}")
    click.echo(f"next: cclseg val {result.best} {data} --split test")


def asked_for(
    *,
    variant: str | None,
    recipe_file: Path | None,
    band_names: tuple[str, ...] | None,
    indices: tuple[str, ...] | None,
    quantize: bool,
    **options: Any,
) -> tuple[ModelConfig, TrainConfig, dict[str, Any]]:
    """Returns the network, the recipe and the checkpoints to begin with or to learn from."""
    from .config import QUANTIZED_RECIPE, TrainConfig
    from .recipe import Recipe, read_recipe

    files = {name: options.pop(name) for name in ("start", "teachers")}
    shape = {name: options.pop(name) for name in SWITCHES}
    shape |= {"band_names": band_names, "indices": indices}
    shape |= {name: options.pop(name) for name in ("height_head", "edge_levels", "tokens")}
    recipe = Recipe(train=QUANTIZED_RECIPE if quantize else TrainConfig())
    if recipe_file:
        recipe = read_recipe(recipe_file)
    origin = files["start"] if quantize else None
    model_config = _network(variant, shape, recipe.model, origin=origin)
    config = dataclasses.replace(_configured(recipe.train, options), quantize=quantize)
    return model_config, config, files


@click.command()
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--model", "variant", help="Network variant (default: ccl-lite0).")
@click.option(
    "-o", "--out", "run", type=click.Path(path_type=Path), required=True, help="Folder of the run."
)
@click.option("--hidden", type=float, help="Share of a crop that is hidden (default: 0.5).")
@click.option("--steps", type=int, help="Optimiser steps (default: 2000).")
@click.option("--max-minutes", type=float, help="Fit the schedule to this time.")
@click.option("--batch-size", type=int, help="Crops per step.")
@click.option("--crop", "crop_px", type=int, help="Crop size in pixels, a multiple of 32.")
@click.option("--lr", type=float, help="Peak learning rate.")
@click.option("--seed", type=int, help="Seed of everything random.")
@click.option("--val-every", type=int, help="Steps between measurements.")
@_switches
@click.option(
    "--bands", "band_names", callback=_names, help="Names of the bands: red,green,blue,nir."
)
@click.option(
    "--indices", callback=_names, help=f"Indices computed from the bands: {','.join(INDEX_NAMES)}."
)
@click.option("--no-pretrained", is_flag=True, help="Start from random weights.")
@click.option("--start", type=click.Path(path_type=Path), help="Checkpoint to begin from.")
def pretrain(
    images: tuple[Path, ...],
    variant: str | None,
    run: Path,
    band_names: tuple[str, ...] | None,
    indices: tuple[str, ...] | None,
    start: Path | None,
    **options: Any,
) -> None:
    """Train a network on IMAGES without labels, for "cclseg train --start".

    IMAGES are files, folders of them, or dataset folders, whose splits "train" and "unlabelled"
    are used without their masks. Parts of each image are hidden, and the network learns to tell
    what is there. Started again, a run resumes.
    """
    from .config import PRETRAINING_RECIPE
    from .distributed import refuse_several
    from .pretrain import pretrain as run_pretraining
    from .progress import PretrainingDisplay

    refuse_several("pretraining")
    shape = {name: options.pop(name) for name in SWITCHES}
    shape |= {"band_names": band_names, "indices": indices}
    model_config = _network(variant, shape, None, origin=None)
    config = _configured(PRETRAINING_RECIPE, options)
    with PretrainingDisplay() as display:
        result = run_pretraining(images, model_config, config, run, start=start, progress=display)
    click.echo(
        f"{result.report['unexplained']:.1%} of what is hidden is unexplained at step "
        f"{result.step}: {result.best}"
    )
    click.echo(f"next: cclseg train DATA --model {model_config.name} --start {result.best} -o RUN")


def _network(
    variant: str | None,
    shape: dict[str, Any],
    in_recipe: ModelConfig | None,
    *,
    origin: Path | None,
) -> ModelConfig:
    """Returns the network that was asked for: by name, else that of a checkpoint or recipe."""
    from cclseg.errors import InputError

    from .checkpoint import load_checkpoint
    from .models import find_variant

    if origin and not variant:
        config = load_checkpoint(origin).model_config
    elif in_recipe and not variant:
        config = in_recipe
    else:
        config = find_variant(variant or _DEFAULT_VARIANT)
    changes = {name: value for name, value in shape.items() if value is not None}
    missing = [name for name in changes if not hasattr(config, name)]
    if missing:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise InputError(
            f"{config.name} has no {options}; expected a CCL network with it, or leave it out"
        )
    return dataclasses.replace(config, **changes)


def _configured(config: TrainConfig, options: dict[str, Any]) -> TrainConfig:
    """Replaces the fields of a recipe that were given on the command line."""
    changes = {name: value for name, value in options.items() if value is not None}
    if changes.pop("no_pretrained"):
        changes["pretrained"] = False
    if "virtual_share" in changes:
        share = changes.pop("virtual_share")
        changes["augment"] = dataclasses.replace(config.augment, virtual_share=share)
    return dataclasses.replace(config, **changes)
