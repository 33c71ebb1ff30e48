"""What all networks share: indices of bands, an encoder, a decoder of their own, and heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from cclseg.errors import InputError

from .indices import VegetationIndices

if TYPE_CHECKING:
    from ..model_config import ModelConfig

INPUT_MULTIPLE = 32
"""Height and width of the input must be multiples of this."""

TRAINING_HEADS = ("edge_head", "deeper_edge_heads", "coarse_head", "height_head", "token_head")
"""Attributes of a network that are never exported."""


class NetworkOutput(NamedTuple):
    """What the network returns while it is trained; s is its output stride, 8, 4 or 1.

    Attributes:
        logits: (N, K, H/s, W/s) class scores.
        edge_logits: (N, 1, h, w) scores of "a class boundary runs here", from the finest decoded
            map that has them, in most networks at stride 4, to the deepest one.
        coarse_logits: (N, K, h, w) class scores of the auxiliary head, mostly at stride 16.
        heights: (N, 1, h, w) heights above ground in metres, of the size of the finest edges;
            None without a height head.
        token_logits: (N, T + 1, h, w) scores of background and kinds of contours, of that size,
            too; None without a token head.
    """

    logits: Tensor
    edge_logits: tuple[Tensor, ...]
    coarse_logits: Tensor
    heights: Tensor | None = None
    token_logits: Tensor | None = None


class SegmentationNetwork(nn.Module):
    """Segments an image: (N, C, H, W) normalised -> (N, K, H/s, W/s) logits, s the output stride.

    In training mode :meth:`forward` returns a :class:`NetworkOutput` with the edge and auxiliary
    heads; in eval mode the logits alone, so an exported graph holds no trace of them. All networks
    have these heads, so that all are trained by one recipe; those for heights and for tokens, the
    kinds of contours, are there on request.

    Args:
        config: Kept as :attr:`config`.
        encoder: Returns maps at strides 2, 4, 8, 16 and 32, or those that the network's own
            :meth:`decode` is written for.
        decoded_widths: Channels of what :meth:`decode` returns.
        head: From the last decoded map to the logits; ends with a convolution with bias.
        edges_at: Which decoded maps learn edges, the first ``config.edge_levels`` of these. The
            first one learns heights and tokens as well; classes are learned from the map 0.

    Raises:
        InputError: More levels of edges than decoded maps that learn them.
    """

    def __init__(
        self,
        config: ModelConfig,
        encoder: nn.Module,
        *,
        decoded_widths: Sequence[int],
        head: nn.Sequential,
        edges_at: tuple[int, ...] = (2, 1, 0),
    ) -> None:
        super().__init__()
        self.config = config
        self.indices = VegetationIndices(config) if config.indices else None
        self.encoder = encoder
        self.head = head
        if config.edge_levels > len(edges_at):
            raise InputError(
                f"{config.name} has {len(edges_at)} decoded maps to learn edges from; got "
                f"edge_levels {config.edge_levels}, expected at most {len(edges_at)}"
            )
        self._edges_at = edges_at[: config.edge_levels]
        finest, *deeper = (decoded_widths[place] for place in self._edges_at)
        self.edge_head = nn.Conv2d(finest, 1, 1)
        self.deeper_edge_heads = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in deeper)
        self.coarse_head = nn.Conv2d(decoded_widths[0], config.num_classes, 1)
        self.height_head = nn.Conv2d(finest, 1, 1) if config.height_head else None
        self.token_head = nn.Conv2d(finest, config.tokens + 1, 1) if config.tokens else None

    def encoded(self, x: Tensor) -> list[Tensor]:
        """Returns the encoder's maps at strides 2, 4, 8, 16 and 32."""
        if self.indices is not None:
            x = self.indices(x)
        maps: list[Tensor] = self.encoder(x)
        return maps

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Turns the encoder's maps into decoded maps, from coarse to fine.

        Most networks return those at strides 16, 8, 4 and maybe 2 and 1.

        Args:
            maps: Of the encoder, in most networks (N, C_i, H/s, W/s) for s = 2, 4, 8, 16, 32.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor | NetworkOutput:
        """Runs the network; H and W must be multiples of 32."""
        decoded = self.decode(self.encoded(x))
        logits: Tensor = self.head(decoded[-1])
        if not self.training:
            return logits
        places = self._edges_at
        heads = (self.edge_head, *self.deeper_edge_heads)
        edges = tuple(head(decoded[place]) for head, place in zip(heads, places, strict=True))
        finest = decoded[places[0]]
        heights = self.height_head(finest) if self.height_head is not None else None
        tokens = self.token_head(finest) if self.token_head is not None else None
        return NetworkOutput(logits, edges, self.coarse_head(decoded[0]), heights, tokens)
