"""Training crops: drawn, warped and changed on the fly, each a pure function of seed and number.

Crop ``index`` of step ``step`` depends on ``(seed, step, index)`` alone, so that a resumed run
sees exactly the crops that an uninterrupted one would have seen.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from cclseg.errors import InputError
from cclseg.virtual import CLASS_NAMES as VIRTUAL_CLASSES
from cclseg.virtual import random_crop

from .cutting import cut, pyramid
from .mixing import class_mix, mosaic, paste_components
from .sketch_tokens import learn_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from cclseg.dataset import Sample

    from .config import AugmentConfig, TrainConfig
    from .mixing import Crop
    from .sketch_tokens import Vocabulary

_Made = TypeVar("_Made")
_PLACES_PER_CLASS = 4096  # remembered places of each class in each image
_VOCABULARY_CROPS = 64


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
    def of(cls, images: Sequence[NDArray[Any]]) -> Normalisation:
        """Chooses constants: the usual ones for 8-bit images, else those of the data."""
        bands = images[0].shape[2]
        if images[0].dtype == np.uint8:
            return cls((127.0,) * bands, (128.0,) * bands, 255.0)
        pixels = np.concatenate(
            [image[::4, ::4].reshape(-1, bands).astype(np.float64) for image in images]
        )
        pixels = pixels[np.isfinite(pixels).all(axis=1)]
        return cls(
            tuple(pixels.mean(axis=0).tolist()),
            tuple(np.maximum(pixels.std(axis=0), 1e-6).tolist()),
            float(np.percentile(pixels, 99.9)),
        )

    def network_input(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(S, S, C) of 0..1 -> (C, S, S), normalised."""
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        normalised = (values * np.float32(self.value_range) - mean) / std
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))


class Batch(NamedTuple):
    """The crops of one step.

    Attributes:
        images: (N, C, S, S) float32, normalised.
        masks: (N, S, S) int64 class ids or the ignore value.
        segments: (N, L, S / stride, S / stride) int64 superpixels, where the loss needs them.
        plain: (M, C, S, S) float32: the last M crops, which have no labels, as they were before
            their exposure and colours were changed.
        heights: (N, S, S) float32 metres, not a number where unknown; None without heights.
        tokens: (N, S / 4, S / 4) int64 kinds of contours, where the network learns them.
    """

    images: Tensor
    masks: Tensor
    segments: Tensor | None = None
    plain: Tensor | None = None
    heights: Tensor | None = None
    tokens: Tensor | None = None


class Drawn(NamedTuple):
    """One crop before it becomes network input.

    Attributes:
        values: (S, S, C) float32, 0 = black, 1 = white.
        mask: (S, S) int64 class ids or the ignore value.
        heights: (S, S) float32 metres, not a number where unknown; None without heights.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.int64]
    heights: NDArray[np.float32] | None


class CropSampler:
    """Draws training crops from labelled images in memory.

    Args:
        samples: The training images; bands in the network's order.
        class_names: One name per class id.
        ignore_index: Mask value of unlabelled pixels.
        config: Crop size, seed and augmentation.
        unlabelled: Images without masks, of the same bands and type.
        stride: Output stride of the network, at which superpixels are cut.
        share: Which of a step's crops are made: all, or those of one process of several.

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
        unlabelled: Sequence[NDArray[Any]] = (),
        stride: int = 4,
        share: slice = slice(None),
    ) -> None:
        self.config = config
        self._stride, self._share = stride, share
        self.normalisation = Normalisation.of([sample.image for sample in samples])
        self._ignore_index = ignore_index
        self._has_heights = any(sample.heights is not None for sample in samples)
        self._pyramids = [
            pyramid(_stacked(sample) if self._has_heights else sample.image, sample.mask)
            for sample in samples
        ]
        self._unlabelled = [
            pyramid(
                _with_unknown_heights(image) if self._has_heights else image,
                np.full(image.shape[:2], ignore_index, np.uint8),
            )
            for image in unlabelled
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
        self._vocabulary: Vocabulary | None = None

    def learn_tokens(self, count: int) -> None:
        """Learns a vocabulary of contours from 64 crops; batches have tokens from then on.

        Args:
            count: The number of tokens.

        Raises:
            InputError: The crops show too few contours.
        """
        self._vocabulary = learn_vocabulary(
            (self._drawn(0, index).mask for index in range(_VOCABULARY_CROPS)),
            count=count,
            ignore_index=self._ignore_index,
            seed=self.config.seed,
        )

    def crop(
        self, step: int, index: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32] | None]:
        """Makes one crop.

        Returns:
            image (C, S, S) float32 normalised, mask (S, S) int64 class ids or the ignore value,
            heights (S, S) float32 metres or None.
        """
        values, mask, heights = self._drawn(step, index)
        return self.normalisation.network_input(values), mask, heights

    def _drawn(self, step: int, index: int) -> Drawn:
        """Makes one crop as it is before it becomes network input."""
        rng = np.random.default_rng((self.config.seed, step, index))
        augment = self.config.augment
        size = self.config.crop_px
        if rng.random() < augment.virtual_share:
            drawn, mask = random_crop(rng, (size, size))
            image: NDArray[Any] = drawn[:, :, ::-1]
            if self._has_heights:
                image = _with_unknown_heights(image)
        else:
            image, mask = self._mixed(rng)
        image, heights = self._parted(image)
        return Drawn(photometric(self._scaled(image), augment, rng), mask.astype(np.int64), heights)

    def _drawn_unlabelled(self, step: int, index: int) -> tuple[NDArray[np.float32], Drawn]:
        """Makes one crop without labels: its values as they are, and the crop itself."""
        rng = np.random.default_rng((self.config.seed, step, index))
        number = int(rng.integers(len(self._unlabelled)))
        height, width = self._unlabelled[number][0][1].shape
        place = int(rng.integers(height)), int(rng.integers(width))
        image, mask = cut(self._unlabelled[number], place, self.config, rng)
        image, heights = self._parted(image)
        plain = self._scaled(image)
        changed = photometric(plain.copy(), self.config.augment, rng)
        return plain, Drawn(changed, mask.astype(np.int64), heights)

    def _parted(self, image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        """Takes the heights from behind the bands, where there are any."""
        return (image[:, :, :-1], image[:, :, -1]) if self._has_heights else (image, None)

    def _scaled(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Raw values -> float32, 0 = black, 1 = white."""
        return image.astype(np.float32) / self.normalisation.value_range

    def _mixed(self, rng: np.random.Generator) -> Crop:
        """Makes a crop of one or several places, as the augmentation says."""
        augment = self.config.augment
        crop = self._warped(rng)
        if self._rare.size and rng.random() < augment.paste_share:
            crop = paste_components(crop, self._warped(rng), classes=self._rare, rng=rng)
        if augment.class_mix_share and rng.random() < augment.class_mix_share:
            crop = class_mix(crop, self._warped(rng), ignore_index=self._ignore_index, rng=rng)
        if augment.mosaic_share and rng.random() < augment.mosaic_share:
            crop = mosaic([crop, *(self._warped(rng) for _ in range(3))], rng=rng)
        return crop

    def batch(self, step: int) -> Batch:
        """Makes the crops of one step."""
        config = self.config
        labelled = config.batch_size
        crops = [self._drawn(step, index) for index in range(labelled)[self._share]]
        plain = []
        if self._unlabelled:
            for index in range(labelled, labelled + config.unlabelled_crops)[self._share]:
                original, crop = self._drawn_unlabelled(step, index)
                plain.append(self.normalisation.network_input(original))
                crops.append(crop)
        heights = [crop.heights for crop in crops if crop.heights is not None]
        return Batch(
            images=batched([self.normalisation.network_input(crop.values) for crop in crops]),
            masks=batched([crop.mask for crop in crops]),
            segments=self._segments([crop.values for crop in crops]),
            plain=batched(plain) if plain else None,
            heights=batched(heights) if heights else None,
            tokens=self._tokens([crop.mask for crop in crops]),
        )

    def _tokens(self, masks: Sequence[NDArray[np.int64]]) -> Tensor | None:
        """Tells the kinds of contours where there is a vocabulary of them."""
        if self._vocabulary is None:
            return None
        return batched([self._vocabulary.token_map(mask) for mask in masks])

    def _segments(self, crops: Sequence[NDArray[np.float32]]) -> Tensor | None:
        """Cuts superpixels where the loss asks for them."""
        if not self.config.loss.potential:
            return None
        from .superpixels import superpixels

        cells = self.config.crop_px // self._stride
        return batched([superpixels(values, size_hw=(cells, cells)) for values in crops])

    def batches(self, first: int) -> Iterator[Batch]:
        """Yields the batches of step ``first`` and all later ones, one prepared ahead."""
        return prepared_ahead(self.batch, first)

    def _warped(self, rng: np.random.Generator) -> Crop:
        """Draws a place in a labelled image and cuts a crop there."""
        number, place = self._place(rng)
        return cut(self._pyramids[number], place, self.config, rng)

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


def prepared_ahead(make: Callable[[int], _Made], first: int) -> Iterator[_Made]:
    """Yields what is made for step ``first`` and all later ones, the next being made meanwhile."""
    step = first
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(make, step)
        while True:
            batch = upcoming.result()
            step += 1
            upcoming = pool.submit(make, step)
            yield batch


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


def batched(arrays: Sequence[NDArray[Any]]) -> Tensor:
    """Stacks arrays of one shape along a new first axis."""
    return torch.from_numpy(np.stack(arrays))


def _stacked(sample: Sample) -> NDArray[np.float32]:
    """Puts the heights behind the bands, so that they are warped and pasted with them."""
    if sample.heights is None:
        return _with_unknown_heights(sample.image)
    return np.dstack([sample.image, sample.heights]).astype(np.float32)


def _with_unknown_heights(image: NDArray[Any]) -> NDArray[np.float32]:
    unknown = np.full(image.shape[:2], np.nan, np.float32)
    return np.dstack([image, unknown]).astype(np.float32)


def _class_places(mask: NDArray[Any], num_classes: int) -> list[NDArray[np.intp]]:
    """Returns for each class up to a few thousand (y, x) places, evenly spread over the image."""
    places = []
    for class_id in range(num_classes):
        found = np.argwhere(mask == class_id)
        stride = max(1, len(found) // _PLACES_PER_CLASS)
        places.append(found[::stride].copy())
    return places
