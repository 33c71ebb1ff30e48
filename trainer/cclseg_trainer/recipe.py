"""Recipes: a training configuration as a TOML file, or taken from a checkpoint.

::

    steps = 2000            # fields of TrainConfig
    lr = 0.002

    [model]                 # fields of the network's configuration; "name" chooses a variant
    name = "ccl-lite0"

    [augment]               # fields of AugmentConfig
    virtual_share = 0.2

    [loss]                  # fields of LossConfig
    lovasz = 1.0

What a recipe leaves out keeps its default; a name that no field has is refused.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cclseg.errors import InputError
from cclseg.suggest import did_you_mean

from .checkpoint import load_checkpoint
from .config import AugmentConfig, LossConfig, TrainConfig
from .models import ModelConfig, find_variant

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_Config = TypeVar("_Config", AugmentConfig, LossConfig, TrainConfig, ModelConfig)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train what.

    Attributes:
        model: The network; None where the recipe does not say.
        train: Everything else.
    """

    model: ModelConfig | None = None
    train: TrainConfig = field(default_factory=TrainConfig)


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe from a ``.toml`` file, or that of an earlier run from its checkpoint.

    Raises:
        InputError: The file cannot be read, or holds what is no field or no value of it.
        BackendError: It is a damaged checkpoint.
    """
    if path.suffix == ".pt":
        checkpoint = load_checkpoint(path)
        return Recipe(checkpoint.model_config, checkpoint.train_config)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML file: {error}") from error
    return _recipe(content, path)


def _recipe(content: dict[str, Any], path: Path) -> Recipe:
    model, augment, loss = (_table(content, name, path) for name in ("model", "augment", "loss"))
    train = TrainConfig(
        **_checked(content, TrainConfig, f"{path}"),
        augment=AugmentConfig(**_checked(augment, AugmentConfig, f"{path} [augment]")),
        loss=LossConfig(**_checked(loss, LossConfig, f"{path} [loss]")),
    )
    if not model:
        return Recipe(None, train)
    if not isinstance(model.get("name"), str):
        raise InputError(f"{path} [model] has no name; expected name = 'ccl-lite0' or another")
    variant = find_variant(model.pop("name"))
    return Recipe(
        dataclasses.replace(variant, **_checked(model, type(variant), f"{path} [model]")), train
    )


def _table(content: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = content.pop(name, {})
    if not isinstance(table, dict):
        raise InputError(f"{path}: '{name}' is {table!r}; expected a table [{name}]")
    return table


def _checked(values: Mapping[str, Any], kind: type[_Config], where: str) -> dict[str, Any]:
    """Returns the values as the fields of a configuration take them.

    Raises:
        InputError: There is no such field, or it takes another type.
    """
    hints = get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)} - {"name", "augment", "loss"}
    taken = {}
    for name, value in values.items():
        if name not in fields:
            raise InputError(f"{where}: there is no '{name}'; {did_you_mean(name, fields)}")
        fitting = _as(value, hints[name])
        if fitting is None:
            raise InputError(f"{where}: {name} is {value!r}; expected {_described(hints[name])}")
        taken[name] = fitting
    return taken


def _as(value: object, hint: Any) -> object | None:  # noqa: ANN401 - a type, or a form of typing
    """Returns a value in the form of a type hint; None where it does not fit."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        fitting = (_as(value, kind) for kind in arguments if kind is not type(None))
        return next((fit for fit in fitting if fit is not None), None)
    if origin is Literal:
        return value if value in arguments else None
    if origin is tuple:
        return _as_tuple(value, arguments)
    if hint is float and type(value) is int:
        return float(value)
    return value if type(value) is hint else None


def _as_tuple(value: object, kinds: tuple[Any, ...]) -> tuple[object, ...] | None:
    if not isinstance(value, list):
        return None
    if kinds[-1:] == (Ellipsis,):
        kinds = kinds[:1] * len(value)
    items = tuple(_as(item, kind) for item, kind in zip(value, kinds, strict=False))
    return items if len(value) == len(kinds) and None not in items else None


def _described(hint: Any) -> str:  # noqa: ANN401 - as above
    if get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list of {len(get_args(hint))} values"
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    kind = next((k for k in get_args(hint) if k is not type(None)), hint)
    return names.get(getattr(kind, "__name__", ""), str(kind))
