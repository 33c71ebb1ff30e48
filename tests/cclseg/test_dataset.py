"""The dataset folder: everything that is wrong is named at once, before any work."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from cclseg.dataset import open_dataset
from cclseg.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    """A dataset of four 24 x 32 images, two of them in "train"."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for stem in "abcd":
        image = rng.integers(0, 256, (24, 32, 3), np.uint8)
        mask = rng.integers(0, 2, (24, 32), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{stem}.png"), image)
        cv2.imwrite(str(tmp_path / "masks" / f"{stem}.png"), mask)
    classes = [{"index": i, "name": n, "color": [i, 0, 9]} for i, n in enumerate(("land", "sea"))]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes, "ignore_index": 255}))
    splits = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    return tmp_path


def test_a_sound_folder_is_read(folder):
    dataset = open_dataset(folder)
    assert dataset.class_names == ("land", "sea")
    assert dataset.palette == ((0, 0, 9), (1, 0, 9))
    assert dataset.check() == 3
    sample = dataset.load("a")
    assert sample.image.shape == (24, 32, 3)
    stored = cv2.imread(str(folder / "images" / "a.png"))
    np.testing.assert_array_equal(sample.image, stored[:, :, ::-1])  # red, green, blue


def test_every_offending_file_is_named_in_one_message(folder):
    (folder / "masks" / "a.png").unlink()
    cv2.imwrite(str(folder / "masks" / "b.png"), np.zeros((24, 31), np.uint8))
    cv2.imwrite(str(folder / "masks" / "c.png"), np.full((24, 32), 2, np.uint8))
    path = folder / "images" / "d.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError) as caught:
        open_dataset(folder).check()
    message = str(caught.value)
    assert "4 of 4 samples" in message
    assert "a.png: missing" in message
    assert "b: the image is 32 x 24, its mask 31 x 24" in message
    assert "c.png holds class id 2" in message
    assert "d.png is cut off" in message


def test_images_of_another_band_count_are_named(folder):
    cv2.imwrite(str(folder / "images" / "b.png"), np.zeros((24, 32, 4), np.uint8))
    with pytest.raises(DatasetError, match=r"b\.png has 4 bands; the other images have 3"):
        open_dataset(folder).check()


def test_colour_masks_are_refused(folder):
    cv2.imwrite(str(folder / "masks" / "a.png"), np.zeros((24, 32, 3), np.uint8))
    with pytest.raises(DatasetError, match="expected a mask of one 8-bit channel"):
        open_dataset(folder).check()


@pytest.mark.parametrize("missing", ["classes.json", "splits.json"])
def test_missing_description_is_named(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(DatasetError, match=missing):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("splits", "problem"),
    [
        ({"train": ["a"], "test": ["a"]}, "stands in the splits 'train' and 'test'"),
        ({"train": "a"}, "not a list"),
    ],
)
def test_splits_that_leak_or_are_malformed_are_refused(folder, splits, problem):
    (folder / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(DatasetError, match=problem):
        open_dataset(folder)


def test_unknown_split_names_the_nearest(folder):
    with pytest.raises(DatasetError, match="did you mean 'train'"):
        open_dataset(folder).stems("trian")


def test_classes_with_a_gap_are_refused(folder):
    classes = {"classes": [{"index": 1, "name": "land"}]}
    (folder / "classes.json").write_text(json.dumps(classes))
    with pytest.raises(DatasetError, match="in a row"):
        open_dataset(folder)


def test_other_band_counts_keep_the_order_of_the_file(folder):
    rasterio = pytest.importorskip("rasterio")
    bands = np.random.default_rng(1).integers(0, 4000, (6, 24, 32)).astype(np.uint16)
    (folder / "images" / "a.png").unlink()
    profile = {"driver": "GTiff", "height": 24, "width": 32, "count": 6, "dtype": "uint16"}
    with rasterio.open(
        folder / "images" / "a.tif", "w", transform=rasterio.Affine(2, 0, 0, 0, -2, 0), **profile
    ) as raster:
        raster.write(bands)
    sample = open_dataset(folder).load("a")
    np.testing.assert_array_equal(sample.image, bands.transpose(1, 2, 0))
