"""Laplacian pyramid of scores: coarse ones first, finer ones where those are in doubt."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class LaplacianPyramid(nn.Module):
    """Reconstructs scores from coarse to fine (LRR, arXiv:1605.02264).

    ``s <- up(s) + doubt(up(s)) r(x)``: each finer map x corrects the enlarged scores, and only as
    far as they leave doubt. LRR finds the doubtful pixels by max pooling of thresholded
    probabilities; here doubt is ``(1 - max_k p_k) K / (K - 1)``, 1 where all classes are alike and
    0 where one is certain, which needs no threshold. All but the finest scores start at 0, so that
    a network with the pyramid begins as the one without it.

    Args:
        widths: Channels of the maps, from coarse to fine, each twice the size of the one before.
        num_classes: K.
        finest: From the last map to its scores, (N, K, h, w).
    """

    def __init__(self, widths: Sequence[int], num_classes: int, finest: nn.Module) -> None:
        super().__init__()
        self._full_doubt = num_classes / (num_classes - 1)
        self.coarser = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width in widths[:-1])
        for parameter in self.coarser.parameters():
            nn.init.zeros_(parameter)
        self.finest = finest

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps from coarse to fine -> (N, K, h, w) at the size of the last one."""
        coarsest, *finer = maps
        scores: Tensor = self.coarser[0](coarsest)
        for residual, x in zip((*self.coarser[1:], self.finest), finer, strict=True):
            scores = F.interpolate(scores, scale_factor=2, mode="bilinear", align_corners=False)
            doubt = (1 - scores.softmax(1).amax(1, keepdim=True)) * self._full_doubt
            scores = scores + doubt * residual(x)
        return scores
