"""What a run begins with: random weights, ImageNet's, those of another run, or rounded ones."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cclseg.errors import InputError

from .models import ModelConfig, QuantizedNetwork, SegmentationNetwork, build_model
from .models.blocks import merged_for_inference
from .models.encoders import EfficientNetLite
from .models.pretrained import load_imagenet

if TYPE_CHECKING:
    from torch import nn

    from .checkpoint import Checkpoint
    from .config import TrainConfig

logger = logging.getLogger(__name__)


def initial_network(
    model_config: ModelConfig, config: TrainConfig, origin: Checkpoint | None
) -> SegmentationNetwork | QuantizedNetwork:
    """Makes the network that a run trains.

    Args:
        model_config: The network.
        config: The recipe; says whether ImageNet weights are wanted, and whether to quantise.
        origin: Checkpoint to begin from: weights whose shapes fit are taken over, for a quantised
            network all of them.

    Raises:
        InputError: The origin is another network.
    """
    if config.quantize:
        assert origin is not None
        return QuantizedNetwork(merged_for_inference(origin.build()))
    model = build_model(model_config)
    encoder = pretrained_encoder(model, config)
    if encoder:
        load_imagenet(encoder, bands=model_config.in_bands)
        encoder.freeze(config.frozen_stages)
    if origin:
        _take_over(model, origin)
    return model


def pretrained_encoder(model: nn.Module, config: TrainConfig) -> EfficientNetLite | None:
    """Returns the encoder that the recipe starts from ImageNet weights, if it does so."""
    if not isinstance(model, SegmentationNetwork) or not config.pretrained:
        return None
    return model.encoder if isinstance(model.encoder, EfficientNetLite) else None


def check_quantized_origin(
    origin: Checkpoint | None, model_config: ModelConfig, class_names: tuple[str, ...]
) -> Checkpoint:
    """Returns the origin of a quantised network, which must be that network and know the classes.

    Raises:
        InputError: There is no origin, or another one.
    """
    if origin is None:
        raise InputError(
            "training with quantisation begins with a trained network; give its checkpoint: "
            "--start RUN/best.pt"
        )
    if origin.spec.class_names != class_names:
        raise InputError(
            f"the checkpoint knows the classes {', '.join(origin.spec.class_names)}, the data "
            f"{', '.join(class_names)}; expected the same in the same order"
        )
    if origin.model_config != model_config:
        raise InputError(
            f"the checkpoint is {origin.model_config}, asked for is {model_config}; quantisation "
            "changes no shapes: leave out --model and the options of its shape"
        )
    return origin


def _take_over(model: SegmentationNetwork, origin: Checkpoint) -> None:
    """Takes over all weights of an earlier run whose shapes fit; at least the encoder's must."""
    weights = model.state_dict()
    fitting = {
        name: value
        for name, value in origin.weights.items()
        if name in weights and weights[name].shape == value.shape
    }
    missing = [name for name in weights if name.startswith("encoder.") and name not in fitting]
    if missing:
        kind = "quantised " if origin.train_config.quantize else ""
        raise InputError(
            f"the checkpoint to begin from is a {kind}{origin.model_config.name}; {len(missing)} "
            f"tensors of the encoder do not fit {model.config.name} (first: {missing[0]}); start "
            "from a run of the same model"
        )
    model.load_state_dict(weights | fitting)
    logger.info("%d of %d tensors taken from %s", len(fitting), len(weights), origin.spec.name)
