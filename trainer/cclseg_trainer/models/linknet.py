"""LinkNet (arXiv:1707.03718): a decoder that adds the encoder's maps instead of joining them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..model_config import ModelConfig
from .blocks import DeconvUpsample, conv_bn
from .encoders import build_encoder
from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkNetConfig(ModelConfig):
    """The shape of a LinkNet.

    Attributes:
        last_width: Channels of the decoder at stride 1; at strides 16 to 2 they are those of the
            encoder, which the decoded maps are added to.
    """

    last_width: int = 32


class LinkNet(SegmentationNetwork):
    """Encoder, and bottleneck blocks that double the size; logits at full size.

    The paper's transposed convolutions stand in their convolution form with kernel 2, as in our
    own network: no backend quantises the original.

    Example:
        >>> model = build_model("linknet-r18", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 64, 64])
    """

    def __init__(self, config: LinkNetConfig) -> None:
        encoder = build_encoder(config.encoder, config.encoder_bands)
        *shallow, deepest = encoder.widths
        widths = (*reversed(shallow), config.last_width)
        head = nn.Sequential(nn.Conv2d(widths[-1], config.num_classes, 1))
        super().__init__(config, encoder, decoded_widths=widths, head=head)
        self.blocks = nn.ModuleList(
            _bottleneck(deep, out) for deep, out in zip((deepest, *widths), widths, strict=False)
        )

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 2 to 32 -> decoded maps at strides 16, 8, 4, 2, 1."""
        *shallow, deep = maps
        decoded = []
        for block, skip in zip(self.blocks, (*reversed(shallow), None), strict=True):
            deep = block(deep)
            deep = deep if skip is None else deep + skip
            decoded.append(deep)
        return decoded


def _bottleneck(in_channels: int, out_channels: int) -> nn.Sequential:
    """(N, C_in, H, W) -> (N, C_out, 2H, 2W) through a quarter of the channels."""
    inner = in_channels // 4
    return nn.Sequential(
        conv_bn(in_channels, inner, act="relu"),
        DeconvUpsample(inner, inner, "relu"),
        conv_bn(inner, out_channels, act="relu"),
    )
