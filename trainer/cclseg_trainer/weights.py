"""What is done to the weights of a network: a step of learning, and what stands around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .config import TrainConfig

_Network = TypeVar("_Network", bound=nn.Module)
_LARGEST_GRADIENT_NORM = 5.0


def parameter_groups(
    model: nn.Module, config: TrainConfig, *, has_pretrained_encoder: bool
) -> list[dict[str, Any]]:
    """Splits what is trained by learning-rate scale and weight decay, for an optimiser."""
    encoder_scale = config.encoder_lr_scale if has_pretrained_encoder else 1.0
    groups: dict[tuple[float, float], list[Tensor]] = {}
    trained = ((n, p) for n, p in model.named_parameters() if p.requires_grad)
    for name, parameter in trained:
        scale = encoder_scale if name.startswith("encoder.") else 1.0
        decay = config.weight_decay if parameter.ndim > 3 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": members, "scale": scale, "weight_decay": decay}
        for (scale, decay), members in groups.items()
    ]


def descend(
    loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, *, rate: float
) -> None:
    """Does one step down the gradient of a loss, the gradient's length bounded.

    Args:
        loss: Scalar.
        model: What is trained.
        optimizer: Made with :func:`parameter_groups`.
        rate: Learning rate, scaled by each group's factor.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT_NORM)
    optimizer.step()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, *, step: int, decay: float) -> None:
    """Moves the weight average towards the model: ``a <- d a + (1 - d) m``.

    Args:
        average: Of the weights so far.
        model: After the step.
        step: Steps before this one.
        decay: The d of a long run; a young average forgets faster, by (1 + step) / (10 + step).
    """
    decay = min(decay, (1 + step) / (10 + step))
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
