"""The CCL network: encoder, correlation-gated decoder, heads."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from torch import Tensor, nn

from cclseg.errors import InputError
from cclseg.suggest import did_you_mean

from .blocks import DeconvUpsample, conv_bn
from .config import VARIANTS, ModelConfig
from .encoders import build_encoder
from .fusion import CCLFusion

INPUT_MULTIPLE = 32
"""Height and width of the input must be multiples of this."""


class NetworkOutput(NamedTuple):
    """What the network returns while it is trained.

    Attributes:
        logits: (N, K, H/4, W/4) class scores.
        edge_logits: (N, 1, H/4, W/4) scores of "a class boundary runs here".
        coarse_logits: (N, K, H/16, W/16) class scores of the auxiliary head.
    """

    logits: Tensor
    edge_logits: Tensor
    coarse_logits: Tensor


class CCLNet(nn.Module):
    """Segments an image: (N, C, H, W) normalised -> (N, K, H/4, W/4) logits.

    In training mode :meth:`forward` returns a :class:`NetworkOutput` with the edge and auxiliary
    heads; in eval mode the logits alone, so an exported graph holds no trace of them.

    Example:
        >>> model = build_model("ccl-nano", num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5, 16, 16])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        act = config.activation
        _, *shallow, deepest = config.widths
        self.encoder = build_encoder(config)
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
        self.head = nn.Sequential(
            conv_bn(previous, previous, kernel=3, groups=previous, act=act),
            nn.Dropout2d(0.1),
            nn.Conv2d(previous, config.num_classes, 1),
        )
        self.edge_head = nn.Conv2d(previous, 1, 1)
        self.coarse_head = nn.Conv2d(config.decoder_widths[0], config.num_classes, 1)

    def forward(self, x: Tensor) -> Tensor | NetworkOutput:
        """Runs the network; H and W must be multiples of 32."""
        *shallow, deep = self.encoder(x)
        levels = []
        for up, fusion, skip in zip(self.ups, self.fusions, reversed(shallow), strict=True):
            deep = fusion(up(deep), skip)
            levels.append(deep)
        logits: Tensor = self.head(deep)
        if not self.training:
            return logits
        return NetworkOutput(logits, self.edge_head(deep), self.coarse_head(levels[0]))


def build_model(variant: str | ModelConfig, **changes: object) -> CCLNet:
    """Makes a network with random weights.

    Args:
        variant: Name of a variant, or a full configuration.
        **changes: Fields of :class:`ModelConfig` that differ from the variant's.

    Raises:
        InputError: Unknown variant.
    """
    if isinstance(variant, str):
        if variant not in VARIANTS:
            raise InputError(f"no model '{variant}'; {did_you_mean(variant, VARIANTS)}")
        variant = VARIANTS[variant]
    return CCLNet(replace(variant, **changes))  # type: ignore[arg-type]
