"""The CCL network: an encoder and a decoder whose skips are gated by correlation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from .adaptive import build_adaptive
from .autocorrelation import AutoCorrelationPyramid
from .blocks import conv_bn
from .context import build_context
from .encoders import GNDEncoder, build_encoder
from .fusion import CCLFusion
from .laplacian import LaplacianPyramid
from .network import SegmentationNetwork
from .upsample import CorrelationUpsample, build_upsample

if TYPE_CHECKING:
    from ..model_config import CCLConfig

_STRIDES = (16, 8, 4)  # of the decoded maps


class CCLNet(SegmentationNetwork):
    """Enlarges deep maps and fuses them with shallow ones; logits at a quarter of the size.

    Between encoder and decoder the maps may pass, in this order, the auto-correlation of three
    levels, and on the deepest the adaptive and the context block; each is the identity at first.

    Example:
        >>> model = build_model("ccl-nano", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 16, 16])
    """

    def __init__(self, config: CCLConfig) -> None:
        act = config.activation
        encoder = (
            GNDEncoder(
                config.encoder_bands,
                widths=config.widths,
                blocks=config.blocks,
                act=act,
                expansion=config.expansion,
                dense=config.dense,
            )
            if config.encoder == "gnd"
            else build_encoder(config.encoder, config.encoder_bands)
        )
        last, classes = config.decoder_widths[-1], config.num_classes
        scores = nn.Sequential(
            conv_bn(last, last, kernel=3, groups=last, act=act),
            nn.Dropout2d(0.1),
            nn.Conv2d(last, classes, 1),
        )
        has_pyramid = config.head == "laplacian"
        head = nn.Sequential(_unchanged(classes)) if has_pyramid else scores
        super().__init__(config, encoder, decoded_widths=config.decoder_widths, head=head)
        self.pyramid = (
            LaplacianPyramid(config.decoder_widths, classes, scores) if has_pyramid else None
        )
        _, *shallow, deepest = config.widths
        self.auto = (
            AutoCorrelationPyramid(
                config.widths[2:], mode=config.auto, lag_weights=config.lag_weights, act=act
            )
            if config.auto != "none"
            else None
        )
        self.adaptive = build_adaptive(config.adaptive, deepest, act)
        self.context = build_context(config.ctx, deepest, act)
        ups, fusions = [], []
        previous = deepest
        for width, skip, radius, stride in zip(
            config.decoder_widths, reversed(shallow), config.radii, _STRIDES, strict=True
        ):
            ups.append(build_upsample(config, previous, width, skip))
            fusions.append(CCLFusion(config, width, skip, radius=radius, stride=stride))
            previous = width
        self.ups = nn.ModuleList(ups)
        self.fusions = nn.ModuleList(fusions)

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 2 to 32, the first unused -> decoded maps at strides 16, 8, 4.

        Behind them come the scores of the Laplacian pyramid, where there is one.
        """
        if self.auto is not None:
            maps = [*maps[:2], *self.auto(maps[2:])]
        _, *shallow, deep = maps
        deep = self.context(self.adaptive(deep))
        decoded = []
        for up, fusion, skip in zip(self.ups, self.fusions, reversed(shallow), strict=True):
            larger = up(deep, skip) if isinstance(up, CorrelationUpsample) else up(deep)
            deep = fusion(larger, skip)
            decoded.append(deep)
        return decoded if self.pyramid is None else [*decoded, self.pyramid(decoded)]


def _unchanged(channels: int) -> nn.Conv2d:
    """A convolution that changes nothing yet: prior and temperature are folded into it later."""
    conv = nn.Conv2d(channels, channels, 1)
    nn.init.dirac_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
