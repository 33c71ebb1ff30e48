"""What stops a run: another recipe, a loss that is not finite, the end of memory."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from cclseg.errors import CclsegError, InputError
from cclseg.files import replacing

from .models import config_to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

    from .checkpoint import Checkpoint
    from .config import TrainConfig
    from .models import ModelConfig

_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)


class TrainingError(CclsegError, RuntimeError):
    """Training cannot go on: the loss is not finite, or memory ran out."""


def check_same_run(last: Checkpoint, model: ModelConfig, config: TrainConfig, path: Path) -> None:
    """Refuses to continue a run with another recipe than it began with.

    Raises:
        InputError: Names what has changed.
    """
    before = config_to_dict(last.model_config) | dataclasses.asdict(last.train_config)
    now = config_to_dict(model) | dataclasses.asdict(config)
    changed = [key for key in now if json.dumps(before.get(key)) != json.dumps(now[key])]
    if changed:
        details = ", ".join(f"{key} was {before.get(key)}, is {now[key]}" for key in changed)
        raise InputError(
            f"{path} is of a run of another configuration ({details}); "
            "use the old settings to resume it, or another folder"
        )


def check_finite(
    loss: Tensor,
    step: int,
    folder: Path,
    learnt: Callable[[], dict[str, Tensor]],
    *,
    is_saved: bool = True,
) -> float:
    """Returns the loss as a number.

    Args:
        loss: Scalar.
        step: Of the run.
        folder: Of the run; gets the batch where the loss is not finite.
        learnt: Returns what the step learnt from, by name; called where the loss is not finite,
            by all processes of a run alike, because theirs is one loss.
        is_saved: False where another process saves it.

    Raises:
        TrainingError: The loss is not finite.
    """
    value = float(loss.item())
    if math.isfinite(value):
        return value
    path = folder / "bad_batch.pt"
    batch = {name: tensor.cpu() for name, tensor in learnt().items()}
    if is_saved:
        with replacing(path) as temporary:
            torch.save(batch, temporary)
    raise TrainingError(
        f"the loss is {value} at step {step}; the batch is saved as {path}; "
        "lower lr or look at these images"
    )


@contextmanager
def advice_where_memory_ends(step: int, config: TrainConfig) -> Iterator[None]:
    """Says what to lower; torch's own message tells bytes."""
    try:
        yield
    except RuntimeError as error:
        if not _OUT_OF_MEMORY.search(str(error)):
            raise
        side, count = config.crop_px, config.batch_size + config.unlabelled_crops
        raise TrainingError(
            f"memory ran out at step {step} with {count} crops of {side} x {side} px; lower "
            f"--batch-size or --crop (half of it takes a quarter), or take a smaller --model"
        ) from error
