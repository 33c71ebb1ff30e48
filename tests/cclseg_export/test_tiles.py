"""Calibration tiles: cut evenly from what is given, and refused where that is no real image."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
import rasterio
from unet import SMOOTH_SPEC

from cclseg.dataset import open_dataset
from cclseg.errors import DatasetError, InputError
from cclseg_export.tiles import (
    ADVISED_TILES,
    LEAST_LIKENESS,
    calibration_tiles,
    likeness,
    unseen_tiles,
)

HEIGHT, WIDTH = SMOOTH_SPEC.input_hw


def smooth_image(seed=0, size_hw=(4 * HEIGHT, 3 * WIDTH)):
    """A BGR picture of soft blobs."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.uniform(0, 255, (*size_hw, 3)), (0, 0), 2)
    return (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)


def write_images(folder, images, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f"image{index:03d}{suffix}"), image)
    return folder


def write_video(path, images):
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (width, height))
    for image in images:
        writer.write(image)
    writer.release()
    return path


def pixels_of(tile, spec=SMOOTH_SPEC):
    """The (H, W, C) values that a tile was made from."""
    return tile[0].transpose(1, 2, 0) * np.array(spec.std) + np.array(spec.mean)


def test_tiles_are_the_pixels_of_the_images_as_red_green_blue(tmp_path):
    image = smooth_image()
    found = calibration_tiles(write_images(tmp_path / "images", [image]), SMOOTH_SPEC)
    assert len(found.tiles) == 12  # the whole grid of 4 x 3
    expected = image[HEIGHT : 2 * HEIGHT, 2 * WIDTH : 3 * WIDTH, ::-1]
    np.testing.assert_allclose(pixels_of(found.tiles[5]), expected, atol=1e-4)
    assert all(t.shape == (1, 3, HEIGHT, WIDTH) and t.dtype == np.float32 for t in found.tiles)


def _dataset_without_masks(root, images):
    write_images(root / "images", images)
    (root / "masks").mkdir()
    stems = [f"image{index:03d}" for index in range(len(images))]
    (root / "splits.json").write_text(json.dumps({"train": stems[:1], "val": stems[1:]}))
    classes = {"classes": [{"index": 0, "name": "any"}]}
    (root / "classes.json").write_text(json.dumps(classes))
    return open_dataset(root)


def test_unseen_tiles_are_those_of_the_split_and_need_no_labels(tmp_path):
    images = [smooth_image(seed) for seed in range(3)]
    dataset = _dataset_without_masks(tmp_path, images)
    tiles = unseen_tiles(dataset, "val", SMOOTH_SPEC, most=4)
    assert len(tiles) == 4
    for tile, image in zip(tiles[::2], images[1:], strict=True):
        np.testing.assert_allclose(pixels_of(tile), image[:HEIGHT, :WIDTH, ::-1], atol=1e-4)


def test_images_smaller_than_the_input_give_no_unseen_tiles(tmp_path):
    images = [smooth_image(seed, (HEIGHT - 1, WIDTH)) for seed in range(2)]
    assert unseen_tiles(_dataset_without_masks(tmp_path, images), "val", SMOOTH_SPEC) == []


def test_every_image_gives_its_share(tmp_path):
    folder = write_images(tmp_path / "images", [smooth_image(seed) for seed in range(5)])
    found = calibration_tiles(folder, SMOOTH_SPEC, most=12)
    assert (len(found.tiles), found.images) == (12, 5)
    few = calibration_tiles(folder, SMOOTH_SPEC, most=3)
    assert (len(few.tiles), few.images) == (3, 3)


def test_of_a_dataset_only_the_training_split_is_used(tmp_path):
    folder = write_images(tmp_path / "images", [smooth_image(seed) for seed in range(3)])
    write_images(tmp_path / "masks", [np.zeros((4 * HEIGHT, 3 * WIDTH), np.uint8)] * 3)
    classes = [{"index": 0, "name": "ground"}]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes}))
    splits = {"train": ["image001"], "test": ["image000", "image002"]}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    found = calibration_tiles(tmp_path, SMOOTH_SPEC)
    expected = cv2.imread(str(folder / "image001.png"))[:HEIGHT, :WIDTH, ::-1]
    np.testing.assert_allclose(pixels_of(found.tiles[0]), expected, atol=1e-4)
    assert found.images == 1


def test_frames_of_a_video_lie_evenly(tmp_path):
    images = [smooth_image(seed, (HEIGHT, WIDTH)) for seed in range(40)]
    path = write_video(tmp_path / "flight.avi", images)
    found = calibration_tiles(path, SMOOTH_SPEC, most=10)
    assert (len(found.tiles), found.images) == (10, 10)
    for index, tile in enumerate(found.tiles):
        seen = cv2.cvtColor(pixels_of(tile).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        expected = cv2.cvtColor(images[4 * index], cv2.COLOR_BGR2GRAY)
        assert np.abs(seen.astype(int) - expected).mean() < 6  # JPEG of each frame


def test_raster_bands_keep_their_order_and_empty_windows_are_left_out(tmp_path):
    spec = dataclasses.replace(SMOOTH_SPEC, bands=("a", "b"), mean=(0.0, 0.0), std=(1.0, 1.0))
    bands = smooth_image()[:, :, :2].transpose(2, 0, 1).astype(np.float32)
    bands[:, 0, 0] = np.nan  # no data in the first of 12 windows
    options = {"width": bands.shape[2], "height": bands.shape[1], "count": 2, "dtype": "float32"}
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff",
        transform=rasterio.Affine(2, 0, 0, 0, -2, 0), crs="EPSG:32633", **options,
    ) as raster:  # fmt: skip
        raster.write(bands)
    found = calibration_tiles(tmp_path, spec)
    assert len(found.tiles) == 11
    np.testing.assert_array_equal(found.tiles[0][0], bands[:, :HEIGHT, WIDTH : 2 * WIDTH])


def test_few_tiles_are_a_warning(tmp_path):
    folder = write_images(tmp_path / "images", [smooth_image(seed) for seed in range(4)])
    (warning,) = calibration_tiles(folder, SMOOTH_SPEC, most=ADVISED_TILES - 1).warnings
    assert f"{ADVISED_TILES - 1} tiles only" in warning
    assert calibration_tiles(folder, SMOOTH_SPEC, most=ADVISED_TILES).warnings == ()


def test_a_few_tiles_of_one_colour_are_allowed_and_many_are_a_warning(tmp_path):
    water = np.full((4 * HEIGHT, 3 * WIDTH, 3), 60, np.uint8)
    some = write_images(tmp_path / "some", [water, *(smooth_image(s) for s in range(3))])
    assert calibration_tiles(some, SMOOTH_SPEC, most=40).warnings == ()
    many = write_images(tmp_path / "many", [water, water, water, smooth_image()])
    (warning,) = calibration_tiles(many, SMOOTH_SPEC, most=40).warnings
    assert warning == "30 of 40 calibration tiles are of one colour."


NOISE = np.random.default_rng(0).integers(0, 256, (4 * HEIGHT, 3 * WIDTH, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "suffix", "reason"),
    [
        ([], ".png", "holds no images"),
        ([smooth_image()[:, :, [0, 1, 2, 2]]], ".png", "has 4 bands, the model takes 3"),
        ([smooth_image()[:32, :32]], ".png", "is 32 x 32 pixels, smaller than the input 96 x 64"),
        ([NOISE], ".png", "looks like random numbers"),
        ([NOISE], ".jpg", "looks like random numbers"),
        ([np.full_like(NOISE, 7)], ".png", "are of one colour"),
    ],
)
def test_what_is_no_real_image_of_that_kind_is_refused(tmp_path, images, suffix, reason):
    folder = write_images(tmp_path / "images", images, suffix)
    with pytest.raises(InputError, match=reason):
        calibration_tiles(folder, SMOOTH_SPEC)


def test_what_is_neither_folder_nor_video_is_refused(tmp_path):
    with pytest.raises(InputError, match="no folder and no video"):
        calibration_tiles(tmp_path / "nothing", SMOOTH_SPEC)


def test_a_dataset_with_a_missing_mask_is_refused(tmp_path):
    write_images(tmp_path / "images", [smooth_image()])
    (tmp_path / "masks").mkdir()
    (tmp_path / "classes.json").write_text('{"classes": [{"index": 0, "name": "ground"}]}')
    (tmp_path / "splits.json").write_text('{"train": ["image000"]}')
    with pytest.raises(DatasetError, match="missing"):
        calibration_tiles(tmp_path, SMOOTH_SPEC)


@pytest.mark.real_data
def test_photographs_satellite_and_radar_are_real_images(real_data):
    scenes = [
        cv2.imread(str(real_data / "dubai/images/tile2_part001.jpg")).transpose(2, 0, 1),
        cv2.imread(str(real_data / "video/DJI_0032_original_4000x2250.jpg")).transpose(2, 0, 1),
    ]
    for name in (
        "sen1floods11_Spain_7370579_S1_VVVH.tif",
        "neon_OSBS_029_10cm_rgb.tif",
        "landsat_amazon_2020_4band.tif",
    ):
        with rasterio.open(real_data / "geo" / name) as raster:
            scenes.append(np.nan_to_num(raster.read().astype(np.float32)))
    for scene in scenes:
        assert likeness(scene[None, :, :200, :200].astype(np.float32)) > LEAST_LIKENESS + 0.2
