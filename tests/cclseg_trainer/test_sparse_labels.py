"""Few labelled pixels of a real satellite scene: six bands, 34 polygons, the rest ignored."""

import json

import cv2
import numpy as np
import pytest

from cclseg.dataset import open_dataset
from cclseg_trainer.config import AugmentConfig, LossConfig, TrainConfig
from cclseg_trainer.models import VARIANTS
from cclseg_trainer.train import train

CLASSES = ("developed", "agriculture", "herbaceous", "shrubland", "forest", "water", "sediment")


@pytest.fixture
def scene(real_data, tmp_path):
    """The scene twice: every other polygon of a class is a label to learn, the rest to check."""
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(real_data / "geo" / "landsat7_nc2000_6band.tif") as file:
        bands, profile = file.read(), file.profile
    with rasterio.open(real_data / "geo" / "landsat7_nc2000_labels_sparse.tif") as file:
        labels = file.read(1)
    valid = (bands != profile["nodata"]).all(axis=0)
    scaled = np.zeros(bands.shape, np.uint8)
    for band, target in zip(bands, scaled, strict=True):
        low, high = np.percentile(band[valid], (1, 99))
        target[valid] = np.clip((band[valid] - low) / (high - low) * 255, 0, 255)
    masks = {name: np.full(labels.shape, 255, np.uint8) for name in ("train", "val")}
    for class_id in range(len(CLASSES)):
        count, polygons = cv2.connectedComponents((labels == class_id).astype(np.uint8))
        for polygon in range(1, count):
            masks["train" if polygon % 2 else "val"][polygons == polygon] = class_id
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    profile.update(dtype="uint8", nodata=0)
    for name, mask in masks.items():
        with rasterio.open(tmp_path / "images" / f"{name}.tif", "w", **profile) as file:
            file.write(scaled)
        cv2.imwrite(str(tmp_path / "masks" / f"{name}.png"), mask)
    classes = [{"index": index, "name": name} for index, name in enumerate(CLASSES)]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes, "ignore_index": 255}))
    (tmp_path / "splits.json").write_text(json.dumps({name: [name] for name in masks}))
    return open_dataset(tmp_path)


@pytest.mark.slow
@pytest.mark.real_data
def test_a_network_learns_from_polygons_alone(scene, tmp_path):
    config = TrainConfig(
        steps=120,
        batch_size=4,
        crop_px=64,
        lr=4e-3,
        val_every=60,
        pretrained=False,
        augment=AugmentConfig(scale=(0.7, 1.5), balanced_share=1.0, photometric=0.3),
        loss=LossConfig(potential=0.3, sparse=0.1, edge=0.0),
    )
    result = train(scene, VARIANTS["ccl-nano"], config, tmp_path / "run")
    labels = scene.load("val").mask
    shares = np.bincount(labels[labels != 255]) / (labels != 255).sum()
    assert result.report["pixels"] == (labels != 255).sum() < 2000
    assert result.report["accuracy"] > shares.max() + 0.2
