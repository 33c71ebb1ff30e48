"""What is done to the weights of a network besides learning."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

_Network = TypeVar("_Network", bound=nn.Module)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, *, decay: float) -> None:
    """Moves the weight average towards the model: ``a <- decay a + (1 - decay) m``."""
    source = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(source[name], 1 - decay)
        else:
            value.copy_(source[name])


def to_device(model: _Network, device: torch.device) -> _Network:
    """Moves a model, its weights laid out as the convolutions like them best."""
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def freeze_norms(module: nn.Module, *, only_of_frozen_weights: bool) -> None:
    """Lets batch norms use their running statistics, all or those that are not trained."""
    for child in module.modules():
        is_norm = isinstance(child, (nn.BatchNorm2d, nn.SyncBatchNorm))
        if is_norm and not (only_of_frozen_weights and child.weight.requires_grad):
            child.eval()
