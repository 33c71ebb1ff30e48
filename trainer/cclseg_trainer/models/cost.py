"""What a network costs: parameters and multiply-accumulates, counted without running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .blocks import merged_for_inference
from .network import TRAINING_HEADS, SegmentationNetwork


@dataclass(frozen=True, slots=True)
class Cost:
    """Size and work of a network.

    Attributes:
        parameters: While it is trained, heads for training included.
        deployed_parameters: Of its exported form: kernels merged, norms folded, one head.
        macs: Multiply-accumulates of convolutions, matrix products and correlations for one image.
            What works element by element (gathers, norms, activations) is not counted.
    """

    parameters: int
    deployed_parameters: int
    macs: int


def cost_of(network: SegmentationNetwork, *, input_hw: tuple[int, int] = (512, 512)) -> Cost:
    """Counts what a network costs for one image; takes no memory for maps.

    Args:
        network: Stays as it is.
        input_hw: Height and width of the image, multiples of 32.

    Example:
        >>> cost_of(build_model("ccl-nano", num_classes=6)).macs
    """
    deployed = merged_for_inference(network).to("meta")
    image = torch.empty(1, network.config.in_bands, *input_hw, device="meta")
    counter = FlopCounterMode(
        display=False,
        custom_mapping={torch.ops.cclseg.local_correlation: _correlation_flops},
    )
    with torch.inference_mode(), counter:
        deployed(image)
    for head in TRAINING_HEADS:
        if hasattr(deployed, head):
            delattr(deployed, head)
    return Cost(
        parameters=_count(network),
        deployed_parameters=_count(deployed),
        macs=counter.get_total_flops() // 2,
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _correlation_flops(a: Any, b: Any, radius: int, *_: Any, **__: Any) -> int:  # noqa: ANN401
    """Two per channel and lag; the counter gives shapes for the maps."""
    batch, channels, height, width = a
    return int(2 * batch * channels * height * width * (2 * radius + 1) ** 2)
