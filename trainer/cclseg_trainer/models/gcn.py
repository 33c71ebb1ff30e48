"""GCN, "Large Kernel Matters" (arXiv:1703.02719): global convolutions and refined boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..model_config import Encoder, ModelConfig
from .blocks import DeconvUpsample
from .context import GlobalConvolution
from .encoders import build_encoder
from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class GCNConfig(ModelConfig):
    """The shape of a GCN.

    Attributes:
        width: Channels of the decoder.
        kernel: Side of the global convolutions, odd.
    """

    output_stride: ClassVar[int] = 4
    encoder: Encoder = "lite0"
    width: int = 32
    kernel: int = 15


class BoundaryRefinement(nn.Module):
    """``x + W2 relu(W1 x)`` with 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = x + self.body(x)
        return y


class GCN(SegmentationNetwork):
    """Encoder, a global convolution at each stride, sums; logits at a quarter of the size.

    The paper's maps behind the global convolutions are the scores of 21 classes; here they have
    32 channels that become scores at the end. It ends at stride 4, the paper at 1, and its
    deconvolutions have kernel 2 in their convolution form.

    Example:
        >>> model = build_model("gcn-lite0", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 16, 16])
    """

    def __init__(self, config: GCNConfig) -> None:
        encoder = build_encoder(config.encoder, config.encoder_bands)
        _, *widths = encoder.widths
        width = config.width
        head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, config.num_classes, 1))
        super().__init__(
            config, encoder, decoded_widths=(width,) * len(widths), head=head, edges_at=(3, 2, 1)
        )
        self.globals = nn.ModuleList(
            nn.Sequential(
                GlobalConvolution(channels, width, config.kernel), BoundaryRefinement(width)
            )
            for channels in reversed(widths)
        )
        self.ups = nn.ModuleList(DeconvUpsample(width, width, "relu") for _ in widths[1:])
        self.refines = nn.ModuleList(BoundaryRefinement(width) for _ in widths[1:])

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 2 to 32, the first unused -> decoded maps at strides 32, 16, 8, 4."""
        _, *shallow, deepest = maps
        first, *convolutions = self.globals
        decoded = [first(deepest)]
        for x, convolution, up, refine in zip(
            reversed(shallow), convolutions, self.ups, self.refines, strict=True
        ):
            decoded.append(refine(up(decoded[-1]) + convolution(x)))
        return decoded
