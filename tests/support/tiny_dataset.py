"""A dataset folder small enough to train on within seconds."""

import json

import cv2
import numpy as np
import pytest

COLOURS_BGR = np.array([[60, 60, 200], [60, 180, 60], [190, 90, 30]])
"""One flat colour per class, so that a few steps suffice to learn them."""


def write_dataset(root, *, stems=("a", "b", "c", "d"), size_hw=(96, 128), seed=0, heights=False):
    """Writes images of noisy coloured rectangles with their masks, and heights by class."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for stem in stems:
        mask = np.zeros(size_hw, np.uint8)
        for _ in range(6):
            y, x = rng.integers(0, size_hw[0] - 20), rng.integers(0, size_hw[1] - 20)
            height, width = rng.integers(15, 40, 2)
            mask[y : y + height, x : x + width] = rng.integers(0, 3)
        image = COLOURS_BGR[mask] + rng.normal(0, 8, (*size_hw, 3))
        mask[:4] = 255
        if heights:
            (root / "heights").mkdir(exist_ok=True)
            _write_heights(root / "heights" / f"{stem}.tif", mask.astype(np.float32) * 5)
        cv2.imwrite(str(root / "images" / f"{stem}.png"), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(root / "masks" / f"{stem}.png"), mask)
    classes = [{"index": i, "name": n} for i, n in enumerate(("red", "green", "blue"))]
    (root / "classes.json").write_text(json.dumps({"classes": classes, "ignore_index": 255}))
    splits = {"train": list(stems[:-2]), "val": [stems[-2]], "test": [stems[-1]]}
    (root / "splits.json").write_text(json.dumps(splits))
    return root


def _write_heights(path, metres):
    rasterio = pytest.importorskip("rasterio")
    height, width = metres.shape
    shape = {"height": height, "width": width, "count": 1, "dtype": "float32"}
    place = rasterio.Affine(0.1, 0, 0, 0, -0.1, 0)
    with rasterio.open(path, "w", driver="GTiff", transform=place, **shape) as raster:
        raster.write(metres, 1)
