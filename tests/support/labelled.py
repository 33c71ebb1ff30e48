"""A dataset folder whose labels are wrong in a known way."""

import json

import cv2
import numpy as np
from networks import brightest_band_spec, colour_patches

from cclseg.dataset import open_dataset

CLASSES = brightest_band_spec().class_names


def write_worse_and_worse(folder):
    """Writes ten images, each wrong in six columns more than the last, and one without labels."""
    for part in ("images", "masks"):
        (folder / part).mkdir()
    stems = [*(f"patch<{number}>" for number in range(10)), "unlabelled"]
    for number, stem in enumerate(stems):
        image = colour_patches((48, 64))
        mask = (2 - image.argmax(axis=2)).astype(np.uint8)  # OpenCV's order is blue, green, red
        mask[:, : 6 * number] = (mask[:, : 6 * number] + 1) % 3
        if stem == "unlabelled":
            mask[:] = 255
        cv2.imwrite(str(folder / "images" / f"{stem}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"{stem}.png"), mask)
    classes = [
        {"index": index, "name": name, "color": [40 * index, 48, 64]}
        for index, name in enumerate(CLASSES)
    ]
    (folder / "classes.json").write_text(json.dumps({"classes": classes, "ignore_index": 255}))
    (folder / "splits.json").write_text(json.dumps({"test": stems}))
    return open_dataset(folder)
