"""What every network's configuration says; one frozen record, stored in every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Activation = Literal["relu", "relu6", "gelu", "hardswish"]
Encoder = Literal["gnd", "lite0", "resnet18"]
Fusion = Literal["plain", "gate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a network; each architecture adds fields of its own.

    Attributes:
        name: Variant name ("ccl-lite0").
        num_classes: Number of classes K.
        in_bands: Number of input channels.
        encoder: "gnd" (our depthwise encoder), "lite0" (EfficientNet-Lite0) or "resnet18".
        output_stride: Input pixels per logit along each axis, the same for all of an architecture.
    """

    output_stride: ClassVar[int] = 1

    name: str
    num_classes: int
    in_bands: int = 3
    encoder: Encoder
