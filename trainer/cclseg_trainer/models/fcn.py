"""FCN-8s (arXiv:1411.4038): scores of three depths, enlarged and summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..model_config import Encoder, ModelConfig
from .blocks import DeconvUpsample, conv_bn
from .encoders import build_encoder
from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class FCNConfig(ModelConfig):
    """The shape of an FCN-8s.

    Attributes:
        deep_width: Channels of the convolution on the deepest map.
        width: Channels of the maps that are summed.
    """

    output_stride: ClassVar[int] = 8
    encoder: Encoder = "lite0"
    deep_width: int = 256
    width: int = 64


class FCN8s(SegmentationNetwork):
    """Encoder, and the sum of its maps at strides 32, 16, 8; logits at an eighth of the size.

    The paper sums class scores; 64 channels stand in their place and become scores at the end, so
    that edges have more to learn from than so many classes. A 3x3 convolution of 256 channels
    stands for the two of 4096 that the paper keeps of VGG's classifier, and a deconvolution of
    kernel 2 in its convolution form, with norm and ReLU, for the paper's of kernel 4.

    Example:
        >>> model = build_model("fcn8s-lite0", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 8, 8])
    """

    def __init__(self, config: FCNConfig) -> None:
        encoder = build_encoder(config.encoder, config.encoder_bands)
        _, _, *shallow, deepest = encoder.widths
        width = config.width
        head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, config.num_classes, 1))
        super().__init__(config, encoder, decoded_widths=(width,) * 3, head=head)
        self.deep = nn.Sequential(
            conv_bn(deepest, config.deep_width, kernel=3, act="relu"),
            conv_bn(config.deep_width, width, act="relu"),
        )
        self.skips = nn.ModuleList(conv_bn(channels, width) for channels in reversed(shallow))
        self.ups = nn.ModuleList(DeconvUpsample(width, width, "relu") for _ in shallow)

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 2 to 32 -> decoded maps at strides 32, 16, 8."""
        _, _, *shallow, deepest = maps
        decoded = [self.deep(deepest)]
        for up, skip, x in zip(self.ups, self.skips, reversed(shallow), strict=True):
            decoded.append(up(decoded[-1]) + skip(x))
        return decoded
