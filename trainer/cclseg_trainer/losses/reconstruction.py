"""How well a network tells what is hidden from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_VARIANCE = 1e-3  # of normalised values: about four grey levels, the noise of a camera


def unexplained_share(
    predicted: Tensor, images: Tensor, hidden: Tensor, variance: Tensor
) -> Tensor:
    """Returns the share of the variance of hidden pixels that a prediction leaves unexplained.

    The mean over bands of ``mean (p - x)^2 / variance``, the inner mean over hidden pixels. 1 is
    about what the mean colour of all images would score, 0 is perfect. A dim band counts as much as
    a bright one. The variance is that of all images and not that of each crop, by which the little
    that there is to see in a crop of nothing but water would outweigh all others.

    Args:
        predicted: (N, C, h, w), h and w whole fractions of H and W; compared with the means of the
            pixels that each value stands for.
        images: (N, C, H, W) normalised, nothing hidden.
        hidden: (N, 1, H', W') bool; only the pixels of these squares count.
        variance: (C,) of the images.
    """
    size = (predicted.shape[-2], predicted.shape[-1])
    counted = F.interpolate(hidden.to(images), size, mode="nearest")
    error = (predicted - F.adaptive_avg_pool2d(images, size)).square()
    means = (error * counted).sum((0, 2, 3)) / counted.sum()
    return (means / variance.clamp_min(_LEAST_VARIANCE)).mean()
