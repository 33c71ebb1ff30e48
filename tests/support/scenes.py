"""Images of coloured shapes with exact truth, and what a coarse network would say of them."""

import cv2
import numpy as np

COLOURS = np.array([[70, 90, 60], [170, 160, 150], [60, 60, 170]], np.float64)


def shapes(seed, size_hw, *, noise=12.0):
    """Returns an image (H, W, 3) uint8 of turned rectangles and discs, and its mask."""
    rng = np.random.default_rng(seed)
    height, width = size_hw
    mask = np.zeros(size_hw, np.uint8)
    for index in range(7):
        centre = (float(rng.integers(0, width)), float(rng.integers(0, height)))
        size = tuple(float(side) for side in rng.integers(14, 40, 2))
        corners = cv2.boxPoints((centre, size, float(rng.uniform(0, 90))))
        cv2.fillPoly(mask, [corners.astype(np.int32)], 1 + index % 2)
    image = COLOURS[mask] + rng.normal(0, noise, (*size_hw, 3))
    return image.clip(0, 255).astype(np.uint8), mask


def blurred_answer(mask, seed, *, blur_px=3.0, noise=0.6, stride=1):
    """Returns logits (3, H / stride, W / stride) that know the mask as if seen out of focus."""
    rng = np.random.default_rng(seed)
    height, width = (-(-side // stride) for side in mask.shape)
    shares = [cv2.GaussianBlur((mask == k).astype(np.float32), (0, 0), blur_px) for k in range(3)]
    cells = [cv2.resize(x, (width, height), interpolation=cv2.INTER_AREA) for x in shares]
    logits = np.log(np.stack(cells) + 0.02) + rng.normal(0, noise, (3, height, width))
    return logits.astype(np.float32)
