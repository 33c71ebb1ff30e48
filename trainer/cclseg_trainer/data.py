"""Training crops: drawn, warped and changed on the fly, each a pure function of seed and number.

Crop ``index`` of step ``step`` depends on ``(seed, step, index)`` alone, so that a resumed run
sees exactly the crops that an uninterrupted one would have seen.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from cclseg.errors import InputError
from cclseg.virtual import CLASS_NAMES as VIRTUAL_CLASSES
from cclseg.virtual import random_crop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from cclseg.dataset import Sample

    from .config import AugmentConfig, TrainConfig

_PLACES_PER_CLASS = 4096  # remembered places of each class in each image
_WARP_CHANNELS = 4  # the most that cv2.warpAffine takes


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How raw values become network input: ``(value - mean) / std`` per band.

    Attributes:
        mean: One value per band, in raw units.
        std: One value per band, in raw units.
        value_range: The raw value that is shown as white, for photometric changes.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Normalisation:
        """Chooses constants: the usual ones for 8-bit images, else those of the data."""
        bands = samples[0].image.shape[2]
        if samples[0].image.dtype == np.uint8:
            return cls((127.0,) * bands, (128.0,) * bands, 255.0)
        pixels = np.concatenate(
            [s.image[::4, ::4].reshape(-1, bands).astype(np.float64) for s in samples]
        )
        pixels = pixels[np.isfinite(pixels).all(axis=1)]
        return cls(
            tuple(pixels.mean(axis=0).tolist()),
            tuple(np.maximum(pixels.std(axis=0), 1e-6).tolist()),
            float(np.percentile(pixels, 99.9)),
        )


class Batch(NamedTuple):
    """The crops of one step.

    Attributes:
        images: (N, C, S, S) float32 normalised.
        masks: (N, S, S) int64 class ids or the ignore value.
        heights: (N, S, S) float32 metres, not a number where unknown; None without heights.
    """

    images: Tensor
    masks: Tensor
    heights: Tensor | None = None


class CropSampler:
    """Draws training crops from labelled images in memory.

    Args:
        samples: The training images; bands in the network's order.
        class_names: One name per class id.
        ignore_index: Mask value of unlabelled pixels.
        config: Crop size, seed and augmentation.

    Raises:
        InputError: Virtual crops were asked for, but the data are of another kind.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        class_names: tuple[str, ...],
        *,
        ignore_index: int,
        config: TrainConfig,
    ) -> None:
        self.config = config
        self.normalisation = Normalisation.of(samples)
        self._ignore_index = ignore_index
        self._has_heights = any(sample.heights is not None for sample in samples)
        self._pyramids = [
            _pyramid(_stacked(sample) if self._has_heights else sample.image, sample.mask)
            for sample in samples
        ]
        self._places = [_class_places(s.mask, len(class_names)) for s in samples]
        counts = np.array(
            [np.bincount(s.mask.ravel(), minlength=256)[: len(class_names)] for s in samples],
            np.float64,
        )  # (images, K) pixels
        self.class_shares: NDArray[np.float64] = counts.sum(axis=0) / counts.sum()
        present = self.class_shares > 0
        rarity = np.exp((1 - self.class_shares) / config.augment.balance_temperature) * present
        self._class_probabilities = rarity / rarity.sum()
        with np.errstate(invalid="ignore"):
            self._image_probabilities = counts / counts.sum(axis=0)  # (images, K)
        self._rare = np.flatnonzero(present & (self.class_shares < 1 / len(class_names)))
        if config.augment.virtual_share:
            self._check_virtual(samples[0], class_names)

    def crop(
        self, step: int, index: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32] | None]:
        """Makes one crop.

        Returns:
            image (C, S, S) float32 normalised, mask (S, S) int64 class ids or the ignore value,
            heights (S, S) float32 metres or None.
        """
        rng = np.random.default_rng((self.config.seed, step, index))
        augment = self.config.augment
        size = self.config.crop_px
        if rng.random() < augment.virtual_share:
            drawn, mask = random_crop(rng, (size, size))
            image: NDArray[Any] = drawn[:, :, ::-1]
            if self._has_heights:
                image = _with_unknown_heights(image)
        else:
            image, mask = self._warped(rng)
            if self._rare.size and rng.random() < augment.paste_share:
                image, mask = paste_components(
                    (image, mask), self._warped(rng), classes=self._rare, rng=rng
                )
        heights = None
        if self._has_heights:
            image, heights = image[:, :, :-1], image[:, :, -1]
        values = photometric(
            image.astype(np.float32) / self.normalisation.value_range, augment, rng
        )
        values *= self.normalisation.value_range
        values -= np.asarray(self.normalisation.mean, np.float32)
        values /= np.asarray(self.normalisation.std, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1)), mask.astype(np.int64), heights

    def batch(self, step: int) -> Batch:
        """Makes the crops of one step."""
        crops = [self.crop(step, index) for index in range(self.config.batch_size)]
        images, masks, heights = zip(*crops, strict=True)
        return Batch(
            torch.from_numpy(np.stack(images)),
            torch.from_numpy(np.stack(masks)),
            torch.from_numpy(np.stack(heights)) if self._has_heights else None,
        )

    def batches(self, first: int) -> Iterator[Batch]:
        """Yields the batches of step ``first`` and all later ones, one prepared ahead."""
        step = first
        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(self.batch, step)
            while True:
                batch = upcoming.result()
                step += 1
                upcoming = pool.submit(self.batch, step)
                yield batch

    def _warped(self, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draws a place, a zoom, an angle and a reflection, and cuts the crop in one warp."""
        number, (y, x) = self._place(rng)
        levels = self._pyramids[number]
        size = self.config.crop_px
        low, high = self.config.augment.scale
        low = min(max(low, size / min(levels[0][1].shape)), high)  # the crop fits into the image
        zoom = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        level = min(int(max(np.floor(-np.log2(zoom)), 0)), len(levels) - 1)
        image, mask = levels[level]
        shrink = 2.0**level
        angle = rng.uniform(0, 2 * np.pi)
        flip = rng.choice((-1.0, 1.0))
        step = 1 / (zoom * shrink)  # source pixels per crop pixel
        matrix = step * np.array(
            [[np.cos(angle) * flip, -np.sin(angle)], [np.sin(angle) * flip, np.cos(angle)]]
        )
        jitter = rng.uniform(-0.25, 0.25, 2) * size
        centre = np.array([x, y]) / shrink
        offset = centre - matrix @ (np.array([size / 2, size / 2]) + jitter)
        affine = np.column_stack([matrix, offset])
        warped_mask = cv2.warpAffine(
            mask,
            affine,
            (size, size),
            flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return _warp(image, affine, size), warped_mask

    def _place(self, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
        """Chooses an image and a (y, x) in it."""
        if rng.random() < self.config.augment.balanced_share:
            wanted = int(rng.choice(len(self._class_probabilities), p=self._class_probabilities))
            number = int(rng.choice(len(self._places), p=self._image_probabilities[:, wanted]))
            places = self._places[number][wanted]
            y, x = places[rng.integers(len(places))]
            return number, (int(y), int(x))
        number = int(rng.integers(len(self._pyramids)))
        height, width = self._pyramids[number][0][1].shape
        return number, (int(rng.integers(height)), int(rng.integers(width)))

    def _check_virtual(self, sample: Sample, class_names: tuple[str, ...]) -> None:
        if class_names != VIRTUAL_CLASSES or sample.image.shape[2] != 3:
            raise InputError(
                f"virtual crops have 3 bands and the classes {', '.join(VIRTUAL_CLASSES)}; "
                f"the data have {sample.image.shape[2]} bands and the classes "
                f"{', '.join(class_names)}; set virtual_share to 0"
            )


def paste_components(
    target: tuple[NDArray[Any], NDArray[Any]],
    donor: tuple[NDArray[Any], NDArray[Any]],
    *,
    classes: NDArray[np.intp],
    rng: np.random.Generator,
    most: int = 4,
) -> tuple[NDArray[Any], NDArray[Any]]:
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


def photometric(
    values: NDArray[np.float32], config: AugmentConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Changes exposure, contrast, gamma, colour, haze, sharpness and noise.

    Args:
        values: (H, W, C) float32, 0 = black, 1 = white. May be overwritten.
        config: Strengths and shares.
        rng: Source of randomness.

    Returns:
        (H, W, C) float32 in 0..1.
    """
    strength = config.photometric
    bands = values.shape[2]
    if strength:
        gain = np.exp(rng.normal(0, 0.2 * strength) + rng.normal(0, 0.08 * strength, bands))
        contrast = np.exp(rng.normal(0, 0.15 * strength))
        bias = rng.normal(0, 0.06 * strength)
        middle = float(values.mean())
        values = ((values - middle) * contrast + middle) * gain.astype(np.float32) + bias
        if bands > 1 and rng.random() < 0.5:
            grey = values.mean(axis=2, keepdims=True)
            values = grey + (values - grey) * np.float32(np.exp(rng.normal(0, 0.4 * strength)))
        np.clip(values, 0, 1, out=values)
        values **= np.float32(np.exp(rng.normal(0, 0.25 * strength)))
        if rng.random() < 0.1:
            haze = np.float32(rng.uniform(0, 0.35) * strength)
            values = values * (1 - haze) + haze * np.float32(rng.uniform(0.6, 0.95))
    if rng.random() < config.blur_share:
        blurred = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.4, 1.2))
        values = np.asarray(blurred, np.float32).reshape(values.shape)
    if rng.random() < config.noise_share:
        sigma = rng.uniform(0.005, 0.03)
        values = values + rng.normal(0, sigma, values.shape).astype(np.float32)
    clipped: NDArray[np.float32] = np.clip(values, 0, 1).astype(np.float32, copy=False)
    return clipped


def _stacked(sample: Sample) -> NDArray[np.float32]:
    """Puts the heights behind the bands, so that they are warped and pasted with them."""
    if sample.heights is None:
        return _with_unknown_heights(sample.image)
    return np.dstack([sample.image, sample.heights]).astype(np.float32)


def _with_unknown_heights(image: NDArray[Any]) -> NDArray[np.float32]:
    unknown = np.full(image.shape[:2], np.nan, np.float32)
    return np.dstack([image, unknown]).astype(np.float32)


def _pyramid(image: NDArray[Any], mask: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Returns (image, mask) at full, half, quarter ... size, images low-pass filtered."""
    levels = [(image, mask)]
    while min(levels[-1][1].shape) >= 256:
        image, mask = levels[-1]
        height, width = mask.shape[0] // 2, mask.shape[1] // 2
        halved = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        levels.append((halved.reshape(height, width, -1), mask[: 2 * height : 2, : 2 * width : 2]))
    return levels


def _warp(image: NDArray[Any], affine: NDArray[np.float64], size: int) -> NDArray[Any]:
    """Warps any number of bands; ``affine`` maps crop pixels to image pixels."""
    parts = [
        cv2.warpAffine(
            np.ascontiguousarray(image[:, :, first : first + _WARP_CHANNELS]),
            affine,
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        ).reshape(size, size, -1)
        for first in range(0, image.shape[2], _WARP_CHANNELS)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def _class_places(mask: NDArray[Any], num_classes: int) -> list[NDArray[np.intp]]:
    """Returns for each class up to a few thousand (y, x) places, evenly spread over the image."""
    places = []
    for class_id in range(num_classes):
        found = np.argwhere(mask == class_id)
        stride = max(1, len(found) // _PLACES_PER_CLASS)
        places.append(found[::stride].copy())
    return places
