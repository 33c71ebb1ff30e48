"""Networks that teach another: one, or several whose opinions are averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from cclseg.errors import InputError

from .bands import numbered_bands
from .checkpoint import load_checkpoint
from .losses import ensemble_logits
from .weights import to_device

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cclseg.spec import ModelSpec

    from .checkpoint import Checkpoint


class Teachers:
    """Trained networks that give the scores which another learns.

    They run one after another without gradients, so memory holds the maps of one at a time. The
    scores of each are brought to the size that the learning network's have, because a U-Net tells
    every pixel and a CCL network every fourth; :func:`~cclseg_trainer.losses.ensemble_logits` says
    how several become one.

    Args:
        checkpoints: The teachers, checked by :func:`load_teachers`.
        output_stride: Of the network that learns: input pixels per logit.
        device: Where they run.
    """

    def __init__(
        self, checkpoints: Sequence[Checkpoint], *, output_stride: int, device: torch.device
    ) -> None:
        self._networks = [to_device(checkpoint.build(), device) for checkpoint in checkpoints]
        self._stride = output_stride

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor | None:
        """(N, C, H, W) normalised -> (N, K, H/s, W/s) float32; None where there is no teacher."""
        if not self._networks:
            return None
        height, width = images.shape[-2:]
        size = (height // self._stride, width // self._stride)
        scores = [
            F.interpolate(network(images).float(), size, mode="bilinear", align_corners=False)
            for network in self._networks
        ]
        return scores[0] if len(scores) == 1 else ensemble_logits(torch.stack(scores))


def load_teachers(paths: Sequence[Path], spec: ModelSpec) -> list[Checkpoint]:
    """Reads the checkpoints of teachers that can teach a network.

    Args:
        paths: Checkpoint files.
        spec: What the network to be taught takes and gives.

    Raises:
        BackendError: A file is damaged or no checkpoint of ours.
        InputError: A teacher has other classes or bands, or takes values on another scale.
    """
    teachers = [load_checkpoint(path) for path in paths]
    for path, teacher in zip(paths, teachers, strict=True):
        for what, theirs, ours, is_same in _compared(teacher.spec, spec):
            if not is_same:
                raise InputError(
                    f"the teacher {path} has the {what} {_listed(theirs)}, the network to be "
                    f"taught {_listed(ours)}; expected the same in the same order: take a teacher "
                    "that was trained on such data"
                )
    return teachers


def _compared(
    theirs: ModelSpec, ours: ModelSpec
) -> tuple[tuple[str, Sequence[object], Sequence[object], bool], ...]:
    """Returns what must agree: its name, both values, and whether they do."""
    return (
        (
            "classes",
            theirs.class_names,
            ours.class_names,
            theirs.class_names == ours.class_names,
        ),
        ("bands", theirs.bands, ours.bands, _may_be_same_bands(theirs.bands, ours.bands)),
        ("means", theirs.mean, ours.mean, theirs.mean == ours.mean),
        ("deviations", theirs.std, ours.std, theirs.std == ours.std),
    )


def _may_be_same_bands(theirs: tuple[str, ...], ours: tuple[str, ...]) -> bool:
    """Tells whether names of bands agree, as far as they were named."""
    numbered = numbered_bands(len(ours))
    return len(theirs) == len(ours) and (theirs == ours or numbered in (theirs, ours))


def _listed(values: Sequence[object]) -> str:
    return ", ".join(f"{value}" for value in values)
