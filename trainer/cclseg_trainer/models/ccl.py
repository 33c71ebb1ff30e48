"""The CCL network: an encoder and a decoder whose skips are gated by correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from .blocks import DeconvUpsample, conv_bn
from .config import Activation, Encoder, Fusion, ModelConfig
from .encoders import GNDEncoder, build_encoder
from .fusion import CCLFusion
from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class CCLConfig(ModelConfig):
    """The shape of a CCL network.

    Attributes:
        widths: Channels of the encoder at strides 2, 4, 8, 16, 32; the first is unused by "lite0".
        blocks: Residual GND blocks at strides 2, 4, 8, 16, 32 ("gnd" only).
        decoder_widths: Channels of the decoder at strides 16, 8, 4.
        fusion: How deep and shallow maps meet: sum, or sum with correlation-gated skip.
        groups: Correlation groups G of the gate.
        group_channels: Channels per correlation group d.
        radii: Correlation radius at strides 16, 8, 4; 0 compares the same place only.
        activation: "relu6" is the fastest in INT8.
    """

    output_stride: ClassVar[int] = 4
    encoder: Encoder = "gnd"
    widths: tuple[int, int, int, int, int] = (16, 24, 32, 64, 96)
    blocks: tuple[int, int, int, int, int] = (1, 0, 1, 2, 1)
    decoder_widths: tuple[int, int, int] = (48, 32, 32)
    fusion: Fusion = "gate"
    groups: int = 1
    group_channels: int = 8
    radii: tuple[int, int, int] = (1, 1, 0)
    activation: Activation = "relu6"


class CCLNet(SegmentationNetwork):
    """Upsamples by deconvolution and fuses by correlation; logits at a quarter of the size.

    Example:
        >>> model = build_model("ccl-nano", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 16, 16])
    """

    def __init__(self, config: CCLConfig) -> None:
        act = config.activation
        encoder = (
            GNDEncoder(config.in_bands, widths=config.widths, blocks=config.blocks, act=act)
            if config.encoder == "gnd"
            else build_encoder(config.encoder, config.in_bands)
        )
        last = config.decoder_widths[-1]
        head = nn.Sequential(
            conv_bn(last, last, kernel=3, groups=last, act=act),
            nn.Dropout2d(0.1),
            nn.Conv2d(last, config.num_classes, 1),
        )
        super().__init__(config, encoder, decoded_widths=config.decoder_widths, head=head)
        _, *shallow, deepest = config.widths
        ups, fusions = [], []
        previous = deepest
        for width, skip, radius in zip(
            config.decoder_widths, reversed(shallow), config.radii, strict=True
        ):
            ups.append(DeconvUpsample(previous, width, act))
            fusions.append(
                CCLFusion(
                    width,
                    skip,
                    fusion=config.fusion,
                    radius=radius,
                    groups=config.groups,
                    group_channels=config.group_channels,
                    act=act,
                )
            )
            previous = width
        self.ups = nn.ModuleList(ups)
        self.fusions = nn.ModuleList(fusions)

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 2 to 32, the first unused -> decoded maps at strides 16, 8, 4."""
        _, *shallow, deep = maps
        decoded = []
        for up, fusion, skip in zip(self.ups, self.fusions, reversed(shallow), strict=True):
            deep = fusion(up(deep), skip)
            decoded.append(deep)
        return decoded
