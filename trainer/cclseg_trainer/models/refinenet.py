"""Light-weight RefineNet (arXiv:1810.03272): maps refined by chained pooling, from deep to fine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ..model_config import Encoder, ModelConfig
from .blocks import conv_bn
from .encoders import build_encoder
from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineNetConfig(ModelConfig):
    """The shape of a light-weight RefineNet.

    Attributes:
        width: Channels of the decoder.
        poolings: In each chain.
    """

    output_stride: ClassVar[int] = 4
    encoder: Encoder = "lite0"
    width: int = 256
    poolings: int = 4


class ChainedPooling(nn.Module):
    """Adds what a chain of 5x5 maxima and pointwise convolutions finds in growing surroundings."""

    def __init__(self, channels: int, poolings: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 1, bias=False) for _ in range(poolings)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        x = F.relu(x)
        summed = x
        for convolution in self.convolutions:
            x = convolution(F.max_pool2d(x, 5, 1, 2))
            summed = summed + x
        return summed


class RefineNetLight(SegmentationNetwork):
    """Encoder, and a chain of poolings at each stride; logits at a quarter of the size.

    As the paper's form for mobile encoders: all convolutions of the decoder are pointwise, the
    residual units are left out. A norm stands behind those that change the number of channels.

    Example:
        >>> model = build_model("refinenet-lite0", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 16, 16])
    """

    def __init__(self, config: RefineNetConfig) -> None:
        encoder = build_encoder(config.encoder, config.encoder_bands)
        _, *widths = encoder.widths
        width = config.width
        head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, config.num_classes, 3, padding=1))
        super().__init__(
            config, encoder, decoded_widths=(width,) * len(widths), head=head, edges_at=(3, 2, 1)
        )
        self.reduces = nn.ModuleList(conv_bn(channels, width) for channels in reversed(widths))
        self.refines = nn.ModuleList(ChainedPooling(width, config.poolings) for _ in widths)
        self.ups = nn.ModuleList(conv_bn(width, width) for _ in widths[1:])

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 2 to 32, the first unused -> decoded maps at strides 32, 16, 8, 4."""
        _, *shallow, deepest = maps
        first, *reduces = self.reduces
        chain, *chains = self.refines
        decoded = [chain(first(deepest))]
        for x, reduce, refine, up in zip(reversed(shallow), reduces, chains, self.ups, strict=True):
            enlarged = F.interpolate(up(decoded[-1]), scale_factor=2.0, mode="bilinear")
            decoded.append(refine(reduce(x) + enlarged))
        return decoded
