"""Which network: one frozen record per variant, stored in every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["relu6", "gelu", "hardswish"]
Encoder = Literal["gnd", "lite0"]
Fusion = Literal["plain", "gate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a CCL network.

    Attributes:
        name: Variant name ("ccl-lite0").
        num_classes: Number of classes K.
        in_bands: Number of input channels.
        encoder: "gnd" (our depthwise encoder) or "lite0" (EfficientNet-Lite0).
        widths: Channels of the encoder at strides 2, 4, 8, 16, 32; the first is unused by "lite0".
        blocks: Residual GND blocks at strides 2, 4, 8, 16, 32 ("gnd" only).
        decoder_widths: Channels of the decoder at strides 16, 8, 4.
        fusion: How deep and shallow maps meet: sum, or sum with correlation-gated skip.
        groups: Correlation groups G of the gate.
        group_channels: Channels per correlation group d.
        radii: Correlation radius at strides 16, 8, 4; 0 compares the same place only.
        activation: "relu6" is the fastest in INT8.
    """

    name: str
    num_classes: int
    in_bands: int = 3
    encoder: Encoder = "gnd"
    widths: tuple[int, int, int, int, int] = (16, 24, 32, 64, 96)
    blocks: tuple[int, int, int, int, int] = (1, 0, 1, 2, 1)
    decoder_widths: tuple[int, int, int] = (48, 32, 32)
    fusion: Fusion = "gate"
    groups: int = 1
    group_channels: int = 8
    radii: tuple[int, int, int] = (1, 1, 0)
    activation: Activation = "relu6"


VARIANTS = {
    "ccl-nano": ModelConfig(name="ccl-nano", num_classes=2),
    "ccl-lite0": ModelConfig(
        name="ccl-lite0",
        num_classes=2,
        encoder="lite0",
        widths=(16, 24, 40, 112, 320),
        blocks=(0, 0, 0, 0, 0),
        decoder_widths=(96, 64, 48),
        groups=2,
    ),
}
"""The variants by name; the number of classes is set when a model is made for a dataset."""
