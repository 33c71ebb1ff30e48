"""SegNet (arXiv:1511.00561): enlarges by putting values where the encoder found its maxima."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from ..model_config import Encoder, ModelConfig
from .blocks import conv_bn
from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class SegNetConfig(ModelConfig):
    """The shape of a SegNet.

    Attributes:
        widths: Channels of the encoder at strides 1, 2, 4, 8, 16, and of the decoder in reverse.
    """

    encoder: Encoder = "own"
    widths: tuple[int, ...] = (32, 64, 96, 128, 128)


class VGGEncoder(nn.Module):
    """Pairs of 3x3 convolutions, each followed by 2x2 maxima."""

    def __init__(self, in_bands: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            _pair(before, after) for before, after in zip((in_bands, *widths), widths, strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> maps at strides 1, 2, 4, 8, 16, each before its maxima are taken."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
            x = F.max_pool2d(x, 2)
        return maps


class SegNet(SegmentationNetwork):
    """Encoder and its mirror image, joined by the places of maxima alone; logits at full size.

    A place of a map is a maximum where it equals the maximum of its 2x2 window, and the deep
    map's value is put there. Where several places of a window are equal, all get the value; the
    paper's index is that of one. Two convolutions a stage with 32 to 128 channels stand for VGG's
    two or three with 64 to 512, so there are no ImageNet weights.

    Example:
        >>> model = build_model("segnet", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 64, 64])
    """

    def __init__(self, config: SegNetConfig) -> None:
        widths = config.widths[::-1]
        after = (*widths[1:], widths[-1])
        head = nn.Sequential(nn.Conv2d(after[-1], config.num_classes, 3, padding=1))
        encoder = VGGEncoder(config.encoder_bands, config.widths)
        super().__init__(config, encoder, decoded_widths=after, head=head)
        self.stages = nn.ModuleList(
            _pair(channels, out) for channels, out in zip(widths, after, strict=True)
        )

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 1 to 16 -> decoded maps at strides 16, 8, 4, 2, 1."""
        deep = F.max_pool2d(maps[-1], 2)
        decoded = []
        for stage, shallow in zip(self.stages, reversed(maps), strict=True):
            deep = stage(unpooled(deep, shallow))
            decoded.append(deep)
        return decoded


def unpooled(deep: Tensor, shallow: Tensor) -> Tensor:
    """Puts each value where the other map has the maximum of the 2x2 window, 0 elsewhere.

    Args:
        deep: (N, C, H, W).
        shallow: (N, C, 2H, 2W).
    """
    largest = F.interpolate(F.max_pool2d(shallow, 2), scale_factor=2.0, mode="nearest")
    enlarged = F.interpolate(deep, scale_factor=2.0, mode="nearest")
    return enlarged * (shallow >= largest).to(enlarged.dtype)


def _pair(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv_bn(in_channels, out_channels, kernel=3, act="relu"),
        conv_bn(out_channels, out_channels, kernel=3, act="relu"),
    )
