"""Checkpoints: weights plus everything needed to rebuild the network and the run.

A checkpoint holds tensors, numbers and JSON text only, so it loads with ``weights_only=True``:
a file from a stranger can be wrong, but it cannot run code.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cclseg.errors import BackendError
from cclseg.files import replacing
from cclseg.spec import ModelSpec

from .config import AugmentConfig, LossConfig, TrainConfig
from .models import (
    ModelConfig,
    QuantizedNetwork,
    SegmentationNetwork,
    build_model,
    config_from_dict,
    config_to_dict,
)
from .models.blocks import merged_for_inference

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trained network and how it came about.

    Attributes:
        model_config: Shape of the network.
        train_config: The whole configuration of the run.
        spec: What the network takes and gives.
        weights: State dict of the network (the weight average).
        step: Optimiser steps done.
        metrics: Validation figures at that step, as of ``cclseg val --json``.
        resume: What only a resumed run needs; empty in a finished checkpoint.
    """

    model_config: ModelConfig
    train_config: TrainConfig
    spec: ModelSpec
    weights: dict[str, Tensor]
    step: int
    metrics: dict[str, Any]
    resume: dict[str, Any] = dataclasses.field(default_factory=dict)

    def build(self) -> SegmentationNetwork:
        """Returns the network with its weights in floating point, in eval mode.

        After training with quantisation it is in its merged form.

        Raises:
            BackendError: It was pretrained without labels and has no scores to give.
        """
        model = self.build_trained()
        return model.network if isinstance(model, QuantizedNetwork) else model

    def build_trained(self) -> SegmentationNetwork | QuantizedNetwork:
        """Returns the network as it is trained, with or without rounding, in eval mode.

        Raises:
            BackendError: It was pretrained without labels and has no scores to give.
        """
        if self.train_config.hidden:
            raise BackendError(
                f"this {self.model_config.name} was pretrained without labels and knows no classes "
                f"yet; train it: cclseg train DATA --model {self.model_config.name} --start "
                "RUN/best.pt"
            )
        network = build_model(self.model_config)
        is_quantized = self.train_config.quantize
        model = QuantizedNetwork(merged_for_inference(network)) if is_quantized else network
        model.load_state_dict(self.weights)
        return model.eval()

    def save(self, path: Path) -> None:
        """Writes the checkpoint whole or not at all."""
        described = {
            "model": config_to_dict(self.model_config),
            "train": dataclasses.asdict(self.train_config),
            "metrics": self.metrics,
        }
        content = {
            "format": FORMAT,
            "config": json.dumps(described),
            "spec": self.spec.to_json(),
            "weights": self.weights,
            "step": self.step,
            "resume": self.resume,
        }
        with replacing(path) as temporary:
            torch.save(content, temporary)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint without running anything in it.

    Raises:
        BackendError: The file is missing, damaged, or no checkpoint of ours.
    """
    if path.is_file() and not zipfile.is_zipfile(path):  # torch's older formats are pickles only
        raise BackendError(
            f"{path} is damaged or no checkpoint of cclseg ({path.stat().st_size} bytes, no zip "
            "archive); train again or copy anew"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BackendError(
            f"cannot read {path}: {error.strerror or error}; check the path"
        ) from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BackendError(
            f"{path} is damaged or no checkpoint of cclseg ({first_line}); train again or copy anew"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BackendError(
            f"{path} is no checkpoint of cclseg (format {FORMAT}); expected the best.pt of a run"
        )
    try:
        described = json.loads(content["config"])
        return Checkpoint(
            model_config=config_from_dict(described["model"]),
            train_config=train_config_from_dict(described["train"]),
            spec=ModelSpec.from_json(content["spec"]),
            weights=content["weights"],
            step=content["step"],
            metrics=described["metrics"],
            resume=content["resume"],
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise BackendError(
            f"{path} was written by another version of cclseg ({error}); train again"
        ) from error


def train_config_from_dict(values: dict[str, Any]) -> TrainConfig:
    """Rebuilds a configuration from :func:`dataclasses.asdict`, read back from JSON."""
    values = dict(values)
    augment = AugmentConfig(**_tuples(values.pop("augment")))
    loss = LossConfig(**_tuples(values.pop("loss")))
    return TrainConfig(augment=augment, loss=loss, **_tuples(values))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
