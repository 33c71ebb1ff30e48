"""The whole training loss: a weighted sum of parts, those of weight 0 never computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch.nn import functional as F

from .balance import DynamicBalance
from .edges import edge_loss
from .heights import height_loss
from .pixels import cross_entropy, focal_loss, hard_pixel_loss
from .regions import dice_loss, lovasz_loss
from .teaching import distillation_loss
from .tokens import token_loss
from .unlabelled import Surroundings, potential_loss, sparse_loss

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import LossConfig
    from ..models import NetworkOutput


class SegmentationLoss:
    """The whole training loss of a network output against a mask.

    Args:
        weights: (K,) class weights of the losses of pixels.
        ignore_index: Mask value that counts nowhere.
        config: Weights of the parts.

    Attributes:
        balance: Follows the parts where ``config.dynamic`` asks for it.
    """

    def __init__(self, weights: Tensor, *, ignore_index: int, config: LossConfig) -> None:
        self._weights = weights
        self._ignore_index = ignore_index
        self._config = config
        self.balance = DynamicBalance()

    @property
    def ignores_heads(self) -> bool:
        """Whether a head beside that of the logits may get no gradient."""
        config = self._config
        return not (config.edge and config.coarse and config.height and config.tokens)

    def __call__(
        self,
        output: NetworkOutput,
        masks: Tensor,
        teacher_logits: Tensor | None = None,
        *,
        images: Tensor | None = None,
        segments: Tensor | None = None,
        heights: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss.

        Args:
            output: Of a network in training mode.
            masks: (N, H, W) int64 class ids or the ignore value.
            teacher_logits: (N, K, h, w) scores of a teacher at any stride, or None.
            images: (N, C, H, W) network input; the potential needs it.
            segments: (N, L, h, w) int64 superpixels at the logits' resolution; so it does these.
            heights: (N, H, W) metres, not a number where unknown, for a network that learns them.
            tokens: (N, h, w) int64 kinds of contours, for a network that learns them.

        Returns:
            Scalar.
        """
        parts = {
            name: compute()
            for name, weight, compute in self._parts(
                output,
                masks,
                teacher_logits,
                images=images,
                segments=segments,
                heights=heights,
                tokens=tokens,
            )
            if weight
        }
        weights = {name: getattr(self._config, name) for name in parts}
        if self._config.dynamic:
            factors = self.balance.weights({name: p.item() for name, p in parts.items()})
            weights = {name: weight * factors[name] for name, weight in weights.items()}
        total = output.logits.new_zeros(())
        for name, part in parts.items():
            total = total + weights[name] * part
        return total

    def _parts(
        self,
        output: NetworkOutput,
        masks: Tensor,
        teacher_logits: Tensor | None,
        *,
        images: Tensor | None,
        segments: Tensor | None,
        heights: Tensor | None,
        tokens: Tensor | None,
    ) -> Iterator[tuple[str, float, Callable[[], Tensor]]]:
        """Yields the name of each part in the configuration, its weight, and how to compute it."""
        config, ignore = self._config, self._ignore_index
        low = output.logits.float()
        logits = _enlarged(low, masks)
        yield "labels", config.labels, lambda: self._cross_entropy(logits, masks)
        yield "dice", config.dice, lambda: dice_loss(logits, masks, ignore_index=ignore)
        yield (
            "focal",
            config.focal,
            lambda: focal_loss(logits, masks, self._weights, ignore_index=ignore),
        )
        yield (
            "ohem",
            config.ohem,
            lambda: hard_pixel_loss(logits, masks, self._weights, ignore_index=ignore),
        )
        yield "lovasz", config.lovasz, lambda: lovasz_loss(logits, masks, ignore_index=ignore)
        coarse_masks = masks[:, 2::4, 2::4]
        yield (
            "coarse",
            config.coarse,
            lambda: self._cross_entropy(
                _enlarged(output.coarse_logits.float(), coarse_masks), coarse_masks
            ),
        )
        edges = [level.float() for level in output.edge_logits]
        yield "edge", config.edge, lambda: edge_loss(edges, masks, ignore_index=ignore)
        yield "sparse", config.sparse, lambda: sparse_loss(low)
        if config.potential:
            assert images is not None
            assert segments is not None
            boundaries = self._boundaries(output).detach()
            around = self._surroundings(low, boundaries, masks, images, segments)
            yield "potential", config.potential, lambda: potential_loss(low, around)
        predicted = output.heights
        if heights is not None and predicted is not None:
            yield "height", config.height, lambda: height_loss(predicted.float(), heights)
        scores = output.token_logits
        if tokens is not None and scores is not None:
            yield "tokens", config.tokens, lambda: token_loss(scores.float(), tokens)
        if teacher_logits is not None:
            teacher = _enlarged(teacher_logits.float(), low)
            yield "distill", config.distill, lambda: distillation_loss(low, teacher)
            yield "match", config.match, lambda: F.mse_loss(low, teacher)

    def _cross_entropy(self, logits: Tensor, masks: Tensor) -> Tensor:
        return cross_entropy(
            logits,
            masks,
            self._weights,
            ignore_index=self._ignore_index,
            smoothing=self._config.label_smoothing,
        )

    def _boundaries(self, output: NetworkOutput) -> Tensor:
        """(N, 1, h, w) probability of a boundary: one minus background where tokens are learnt."""
        if output.token_logits is not None and self._config.tokens:
            return 1 - output.token_logits.float().softmax(1)[:, :1]
        return output.edge_logits[0].float().sigmoid()

    def _surroundings(
        self, low: Tensor, boundaries: Tensor, masks: Tensor, images: Tensor, segments: Tensor
    ) -> Surroundings:
        """Brings what the potential needs to the resolution of the logits."""
        size = (low.shape[-2], low.shape[-1])
        unlabelled = (masks == self._ignore_index)[:, None].float()
        return Surroundings(
            images=F.adaptive_avg_pool2d(images, size),
            edges=_enlarged(boundaries, low),
            unlabelled=F.adaptive_avg_pool2d(unlabelled, size)[:, 0] > 0.5,
            segments=segments,
        )


def _enlarged(maps: Tensor, like: Tensor) -> Tensor:
    """(N, C, h, w) at the height and width of another tensor."""
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)
