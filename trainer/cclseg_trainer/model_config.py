"""What a network is made of: frozen records, stored in every checkpoint; light to import."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import ClassVar, Literal

from cclseg.correlation import Metric  # noqa: TC001 - choices_of reads the annotation
from cclseg.errors import InputError

Activation = Literal["relu", "relu6", "gelu", "hardswish"]
Encoder = Literal["gnd", "lite0", "lite2", "resnet18", "own"]
Fusion = Literal["plain", "gate", "gather", "full"]
Upsampling = Literal["deconv", "bilinear", "corr"]
Context = Literal[
    "none", "ppm", "aspp", "gcn", "danet", "ema", "criss-cross", "interlaced"
]  # fmt: skip
Adaptive = Literal["none", "deform", "lsk"]
AutoCorrelation = Literal["none", "descriptor", "rotation", "attention", "biased-attention"]
LagWeights = Literal["static", "dynamic"]
Dense = Literal["none", "harmonic"]
Head = Literal["plain", "laplacian"]
Index = Literal["ndvi", "arvi", "savi", "exg", "vari"]
MOST_EDGE_LEVELS = 3
INDEX_NAMES: tuple[Index, ...] = typing.get_args(Index)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a network; each architecture adds fields of its own.

    Attributes:
        name: Variant name ("ccl-lite0").
        num_classes: Number of classes K.
        in_bands: Number of input channels.
        encoder: "gnd" (our depthwise encoder), "lite0" or "lite2" (EfficientNet-Lite), "resnet18",
            or "own" for an architecture that cannot do with another's.
        indices: Vegetation indices that the network computes from its input and adds to it.
        band_names: Names of the input channels; () for red, green and blue, or for numbers.
        band_gain: Per band, with ``band_offset``: reflectance = offset + gain * input, for the
            indices; () for 8-bit images normalised as (value - 127) / 128.
        band_offset: Per band.
        height_head: Learn the height above ground beside the classes, where the data have it.
        edge_levels: Decoded maps that learn where classes meet, from the finest on (ERN,
            doi:10.3390/rs10091339).
        output_stride: Input pixels per logit along each axis, the same for all of an architecture.
    """

    output_stride: ClassVar[int] = 1

    name: str
    num_classes: int
    in_bands: int = 3
    encoder: Encoder
    indices: tuple[Index, ...] = ()
    band_names: tuple[str, ...] = ()
    band_gain: tuple[float, ...] = ()
    band_offset: tuple[float, ...] = ()
    height_head: bool = False
    edge_levels: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.edge_levels <= MOST_EDGE_LEVELS:
            raise InputError(
                f"edge_levels is {self.edge_levels}; expected 1 to {MOST_EDGE_LEVELS}: a network "
                "has that many decoded maps to learn edges from"
            )

    @property
    def encoder_bands(self) -> int:
        """Channels that the encoder takes: the bands, and the indices computed from them."""
        return self.in_bands + len(self.indices)


@dataclass(frozen=True, slots=True, kw_only=True)
class CCLConfig(ModelConfig):
    """The shape of a CCL network.

    Attributes:
        widths: Channels of the encoder at strides 2, 4, 8, 16, 32; the first is unused but by
            "gnd".
        blocks: Residual GND blocks at strides 2, 4, 8, 16, 32 ("gnd" only).
        expansion: Inner widening of these blocks.
        decoder_widths: Channels of the decoder at strides 16, 8, 4.
        fusion: How deep and shallow maps meet.
        metric: What the fusion correlates by: cosine, squared or absolute differences.
        centred: Remove the mean over a group's channels before the cosine, which makes it ZNCC.
        groups: Correlation groups G.
        group_channels: Channels per correlation group d.
        radii: Correlation radius at strides 16, 8, 4; 0 compares the same place only.
        up: How deep maps are enlarged.
        ctx: Context block on the deepest map.
        adaptive: Block with a receptive field that follows the content, on the deepest map.
        auto: Auto-correlation of the encoder's maps at strides 8, 16, 32.
        lag_weights: Of the auto-correlation: learnt, or learnt and changed by the image.
        dense: Links between the residual blocks at stride 16 that leave blocks out ("gnd" only).
        head: Scores from the finest map alone, or from a Laplacian pyramid of all three.
        activation: "relu6" is the fastest in INT8.

    Raises:
        InputError: Dense links in an encoder whose blocks are not ours.
    """

    output_stride: ClassVar[int] = 4
    encoder: Encoder = "gnd"
    widths: tuple[int, int, int, int, int] = (16, 24, 32, 64, 96)
    blocks: tuple[int, int, int, int, int] = (1, 0, 1, 2, 1)
    expansion: int = 2
    decoder_widths: tuple[int, int, int] = (48, 32, 32)
    fusion: Fusion = "gate"
    metric: Metric = "ncc"
    centred: bool = False
    groups: int = 1
    group_channels: int = 8
    radii: tuple[int, int, int] = (1, 1, 0)
    up: Upsampling = "deconv"
    ctx: Context = "none"
    adaptive: Adaptive = "none"
    auto: AutoCorrelation = "none"
    lag_weights: LagWeights = "static"
    dense: Dense = "none"
    head: Head = "plain"
    activation: Activation = "relu6"

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        if self.dense != "none" and self.encoder != "gnd":
            raise InputError(
                f"dense is {self.dense!r}, but the blocks of the encoder {self.encoder!r} are "
                "fixed; expected 'none', or a network of ours: ccl-nano, ccl-small, ccl-base"
            )


SWITCHES: dict[str, str] = {
    "fusion": "How deep and shallow maps meet.",
    "metric": "What the fusion correlates by.",
    "up": "How deep maps are enlarged.",
    "ctx": "Context block on the deepest map.",
    "adaptive": "Block whose receptive field follows the content.",
    "auto": "Auto-correlation of the encoder's maps.",
    "lag_weights": "Weights of the auto-correlation's lags.",
    "dense": "Links that leave blocks of our own encoder out.",
    "head": "Scores from the finest map, or from a pyramid.",
    "activation": "Activation of decoder and own encoder.",
}
"""The choices of a CCL network that the command line offers, with what they choose."""


def choices_of(switch: str) -> tuple[str, ...]:
    """Returns the values that a field of :class:`CCLConfig` can take."""
    return typing.get_args(typing.get_type_hints(CCLConfig)[switch])
