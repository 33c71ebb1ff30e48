"""Checkpoints, networks and labelled images small enough to export many times."""

import json

import cv2
import numpy as np
import torch
from networks import brightest_band_spec, colour_patches, write_graph
from onnx import helper, numpy_helper

from cclseg.dataset import open_dataset
from cclseg.segmenter import Segmenter
from cclseg.spec import ModelSpec
from cclseg_trainer.checkpoint import Checkpoint
from cclseg_trainer.config import TrainConfig
from cclseg_trainer.models import build_model

TILE_HW = (64, 64)
FRAGILE_NODES = ("spread", "gather")
"""Nodes of the fragile network that 8 bits ruin, both or none in floating point."""


def random_checkpoint(variant, class_names, *, fusion="gate", bands=3, input_hw=(64, 96)):
    """A network with random weights whose gates are open and whose norms are not trivial."""
    torch.manual_seed(0)
    model = build_model(variant, num_classes=len(class_names), fusion=fusion, in_bands=bands)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
        if hasattr(module, "gamma"):
            torch.nn.init.normal_(module.gamma)
    spec = ModelSpec(
        name=variant,
        class_names=class_names,
        bands=tuple(f"band{i}" for i in range(bands)),
        mean=(127.0,) * bands,
        std=(128.0,) * bands,
        input_hw=input_hw,
    )
    return Checkpoint(model.config, TrainConfig(), spec, model.state_dict(), 1, {})


def fragile_spec(**changes):
    """What the fragile network says of itself."""
    return brightest_band_spec(tile_hw=TILE_HW, name="fragile", std=(255.0,) * 3, **changes)


def write_fragile(path, *, metadata=None):
    """Writes a network that tells the brightest band, and that 8 bits ruin in one place.

    One channel between the nodes ``spread`` and ``gather`` is 4,000 times as large as the others,
    which one scale for all of them rounds to nothing. The last node, ``head``, takes 8 bits well.
    """
    spread = np.zeros((4, 3, 1, 1), np.float32)
    spread[:3, :, 0, 0] = np.eye(3)
    spread[3] = 4000 / 3
    gather = np.zeros((3, 4, 1, 1), np.float32)
    gather[:, :3, 0, 0] = 2 * np.eye(3)
    head = np.eye(3, dtype=np.float32)[:, :, None, None]
    weights = {"spread.weight": spread, "gather.weight": gather, "head.weight": head}
    weights |= {f"{name.split('.')[0]}.bias": np.zeros(len(w), np.float32)
                for name, w in weights.items()}  # fmt: skip
    pool = helper.make_node(
        "AveragePool", ["images"], ["pooled"], name="pool", kernel_shape=[4, 4], strides=[4, 4]
    )
    chain = [("spread", "pooled", "wide"), ("gather", "wide_active", "narrow"),
             ("head", "narrow", "logits")]  # fmt: skip
    convolutions = [
        helper.make_node("Conv", [taken, f"{name}.weight", f"{name}.bias"], [given], name=name)
        for name, taken, given in chain
    ]
    relu = helper.make_node("Relu", ["wide"], ["wide_active"], name="relu")
    height, width = TILE_HW
    return write_graph(
        path,
        [pool, convolutions[0], relu, *convolutions[1:]],
        inputs={"images": ["n", 3, height, width]},
        outputs={"logits": ["n", 3, height // 4, width // 4]},
        metadata=fragile_spec().to_metadata() if metadata is None else metadata,
        weights=[numpy_helper.from_array(w, name) for name, w in weights.items()],
    )


def write_dataset(root, labeller, *, image_hw=(160, 160)):
    """Writes images of coloured squares, labelled by a function (H, W, 3) BGR -> (H, W) ids."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    splits = {"train": ["a", "b"], "val": ["c"], "test": ["d", "e"]}
    for seed, stem in enumerate("abcde"):
        image = cv2.GaussianBlur(colour_patches(image_hw, seed=seed), (0, 0), 1.5)
        cv2.imwrite(str(root / "images" / f"{stem}.png"), image)
        cv2.imwrite(str(root / "masks" / f"{stem}.png"), labeller(image).astype(np.uint8))
    classes = [{"index": i, "name": n} for i, n in enumerate(fragile_spec().class_names)]
    (root / "classes.json").write_text(json.dumps({"classes": classes}))
    (root / "splits.json").write_text(json.dumps(splits))
    return open_dataset(root)


def labelled_by(model, root):
    """Writes a dataset whose labels are what a model file says, so that its own IoU is 1."""
    with Segmenter(model, backend="onnxruntime", threads=1) as segmenter:
        return write_dataset(root, lambda image: segmenter(image).mask)
