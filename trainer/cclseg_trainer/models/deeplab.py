"""DeepLabV3+ (arXiv:1802.02611): atrous pyramid at stride 16, and a decoder with one skip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model_config import Encoder, ModelConfig
from .blocks import conv_bn
from .context import AtrousPyramid
from .encoders import build_encoder
from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepLabConfig(ModelConfig):
    """The shape of a DeepLabV3+.

    Attributes:
        encoder_stride: Of the encoder's deepest map, 8, 16 or 32.
        rates: Dilations of the pyramid: half of the paper's for stride 16, because crops have half
            the size of the paper's 513 pixels. Taps that lie outside of every crop never learn,
            and on whole tiles they speak up.
        width: Channels behind the pyramid and of the decoder.
        skip_width: Channels that the shallow map is reduced to.
    """

    output_stride: ClassVar[int] = 4
    encoder: Encoder = "lite0"
    encoder_stride: int = 16
    rates: tuple[int, ...] = (3, 6, 9)
    width: int = 256
    skip_width: int = 48


class DeepLabV3Plus(SegmentationNetwork):
    """Dilated encoder, atrous pyramid, decoder; logits at a quarter of the size.

    All 3x3 convolutions are separable, as in the paper's own fast form; the branches of the
    pyramid have 64 channels where the paper's have 256.

    Example:
        >>> model = build_model("deeplab-lite0", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 16, 16])
    """

    def __init__(self, config: DeepLabConfig) -> None:
        encoder = build_encoder(
            config.encoder, config.encoder_bands, output_stride=config.encoder_stride
        )
        _, shallow, *_, deepest = encoder.widths
        width = config.width
        head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, config.num_classes, 1))
        super().__init__(config, encoder, decoded_widths=(width, width), head=head, edges_at=(1, 0))
        self._enlargement = config.encoder_stride / config.output_stride
        self.pyramid = AtrousPyramid(deepest, "relu", config.rates, width)
        self.skip = conv_bn(shallow, config.skip_width, act="relu")
        self.refine = nn.Sequential(
            _separable(width + config.skip_width, width), _separable(width, width)
        )

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 2 to 16 -> decoded maps at strides 16 and 4."""
        _, shallow, *_, deepest = maps
        context = self.pyramid(deepest)
        enlarged = F.interpolate(context, scale_factor=self._enlargement, mode="bilinear")
        return [context, self.refine(torch.cat([enlarged, self.skip(shallow)], 1))]


def _separable(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv_bn(in_channels, in_channels, kernel=3, groups=in_channels, act="relu"),
        conv_bn(in_channels, out_channels, act="relu"),
    )
