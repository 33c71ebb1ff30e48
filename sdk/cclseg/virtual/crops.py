"""Labelled crops of virtual scenes, cheap enough to mix into training."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ._cv import cv2
from .sensor import random_sensor
from .style import random_style
from .world import World, build_world

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..frame import Image


class CropSampler:
    """Cuts random crops out of a fixed pool of scenes.

    A scene takes seconds to render and a crop milliseconds, so scenes are rendered at their first
    use and kept. A crop is a function of the sampler's seed and of the generator's state alone,
    whatever was sampled before: a training run that resumes sees the crops it would have seen.

    Args:
        seed: Of the pool.
        worlds: Number of scenes in the pool; each takes about 17 MB at the default size.
        world_px: Side of a scene.
        desert_share: Probability of desert scenes.

    Example:
        >>> sampler = CropSampler(seed=0, worlds=1, world_px=512)
        >>> image, mask = sampler.sample(np.random.default_rng(0), (64, 96))
        >>> image.shape, mask.shape
        ((64, 96, 3), (64, 96))
    """

    def __init__(
        self, *, seed: int = 0, worlds: int = 20, world_px: int = 2048, desert_share: float = 0.75
    ) -> None:
        self._seed = seed
        self._pool: list[World | None] = [None] * worlds
        self._world_px = world_px
        self._desert_share = desert_share

    def sample(
        self, rng: np.random.Generator, size_hw: tuple[int, int]
    ) -> tuple[Image, NDArray[np.uint8]]:
        """Cuts one crop at a random place, direction, scale and exposure.

        Args:
            rng: Source of randomness.
            size_hw: Height and width of the crop in pixels.

        Returns:
            (H, W, 3) uint8 BGR image and (H, W) uint8 class ids.

        Raises:
            InputError: The size is not positive.
        """
        if min(size_hw) < 1:
            raise InputError(f"size_hw is {size_hw}; expected a positive height and width")
        image, mask = _cut(self._world(int(rng.integers(len(self._pool)))), rng, size_hw)
        return random_sensor(rng).expose(image, rng), mask

    def _world(self, index: int) -> World:
        world = self._pool[index]
        if world is None:
            rng = np.random.default_rng((self._seed, index))
            gsd_m = float(np.exp(rng.uniform(np.log(0.4), np.log(1.8))))
            style = random_style(rng, desert_share=self._desert_share)
            seed = int(rng.integers(1 << 31))
            world = build_world(seed, style=style, size_px=self._world_px, gsd_m=gsd_m)
            self._pool[index] = world
        return world


def random_crop(
    rng: np.random.Generator, size_hw: tuple[int, int]
) -> tuple[Image, NDArray[np.uint8]]:
    """Cuts a random labelled crop with ground sampling distances of about 0.3 to 2.5 m.

    Uses one :class:`CropSampler` per process; each of its scenes is rendered at its first use,
    which takes seconds. The crop depends on the generator's state alone.

    Args:
        rng: Source of randomness.
        size_hw: Height and width of the crop in pixels.

    Returns:
        (H, W, 3) uint8 BGR image and (H, W) uint8 class ids of ``CLASS_NAMES``.
    """
    return _process_sampler().sample(rng, size_hw)


@functools.cache
def _process_sampler() -> CropSampler:
    return CropSampler()


def _cut(
    world: World, rng: np.random.Generator, size_hw: tuple[int, int]
) -> tuple[Image, NDArray[np.uint8]]:
    height, width = size_hw
    zoom = float(np.exp(rng.uniform(np.log(0.75), np.log(1.4))))  # world pixels per crop pixel
    angle = float(rng.uniform(0, 2 * np.pi))
    reach = min(zoom * float(np.hypot(height, width)) / 2, world.size_px / 2)
    centre = rng.uniform(reach, world.size_px - reach + 1e-6, 2)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    flip = 1 if rng.random() < 0.5 else -1
    linear = np.array([[cos * flip, -sin], [sin * flip, cos]])
    offset = centre - linear @ np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.column_stack([linear, offset])
    flags, border = cv2.WARP_INVERSE_MAP, cv2.BORDER_REFLECT_101
    image: Image = cv2.warpAffine(
        world.image, matrix, (width, height), flags=flags | cv2.INTER_LINEAR, borderMode=border
    )
    mask: NDArray[np.uint8] = cv2.warpAffine(
        world.label, matrix, (width, height), flags=flags | cv2.INTER_NEAREST, borderMode=border
    )
    return image, mask
