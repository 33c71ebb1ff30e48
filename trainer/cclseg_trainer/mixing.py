"""Training crops made of several: components pasted, classes mixed, four put side by side.

A crop is an image (S, S, C) with its mask (S, S). None of these functions changes its input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Crop: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
"""Image (S, S, C) of any type, and mask (S, S)."""

_MOSAIC_CENTRE = (0.25, 0.75)  # where four crops meet, as a share of the side


def paste_components(
    target: Crop,
    donor: Crop,
    *,
    classes: NDArray[np.intp],
    rng: np.random.Generator,
    most: int = 4,
) -> Crop:
    """Pastes connected components of rare classes from one crop into another, edges feathered.

    Args:
        target: (S, S, C) image and (S, S) mask to paste into; left unchanged.
        donor: The same of the crop to take from.
        classes: Class ids that may be pasted.
        rng: Source of randomness.
        most: The most components to paste.

    Returns:
        A new image and mask.
    """
    donor_image, donor_mask = donor
    candidates = []
    for class_id in classes:
        count, labels = cv2.connectedComponents((donor_mask == class_id).astype(np.uint8))
        sizes = np.bincount(labels.ravel(), minlength=count)
        fitting = np.flatnonzero((sizes > 40) & (sizes < donor_mask.size // 8))
        candidates += [(labels, int(label)) for label in fitting if label]
    if not candidates:
        return target
    chosen = rng.permutation(len(candidates))[: rng.integers(1, most + 1)]
    region = np.zeros(donor_mask.shape, bool)
    for number in chosen:
        labels, label = candidates[number]
        region |= labels == label
    alpha = cv2.GaussianBlur(region.astype(np.float32), (5, 5), 0)[:, :, None]
    image = target[0] * (1 - alpha) + donor_image * alpha
    return image.astype(donor_image.dtype), np.where(region, donor_mask, target[1])


def class_mix(target: Crop, donor: Crop, *, ignore_index: int, rng: np.random.Generator) -> Crop:
    """Lays half of the classes of one crop over another (ClassMix, arXiv:2007.07936).

    Args:
        target: The crop below.
        donor: The crop whose classes are taken, rounded up to at least one.
        ignore_index: Mask value that is no class.
        rng: Source of randomness.
    """
    present = np.unique(donor[1])
    present = present[present != ignore_index]
    taken = rng.choice(present, (len(present) + 1) // 2, replace=False)
    where = np.isin(donor[1], taken)
    return np.where(where[:, :, None], donor[0], target[0]), np.where(where, donor[1], target[1])


def mosaic(crops: Sequence[Crop], *, rng: np.random.Generator) -> Crop:
    """Puts four crops together, each keeping one corner, at a random point near the middle.

    Args:
        crops: Four crops of one size.
        rng: Source of randomness.
    """
    image, mask = crops[0][0].copy(), crops[0][1].copy()
    low, high = _MOSAIC_CENTRE
    y, x = (int(rng.uniform(low, high) * length) for length in mask.shape)
    corners = (np.s_[:y, x:], np.s_[y:, :x], np.s_[y:, x:])
    for (other_image, other_mask), corner in zip(crops[1:], corners, strict=True):
        image[corner], mask[corner] = other_image[corner], other_mask[corner]
    return image, mask
