"""Rivals on our encoder: the contract, unpooling, INT8 files, and a loss that falls."""

from __future__ import annotations

import csv

import numpy as np
import onnxruntime
import pytest
import torch
from network_contract import NetworkContract, checkpoint_of, randomised, sum_of_squares
from torch.nn import functional as F

from cclseg.errors import InputError
from cclseg_export.calibrate import calibrate
from cclseg_export.emit import emit
from cclseg_export.plan import plan_quantization
from cclseg_export.targets import rules_of
from cclseg_export.to_onnx import to_onnx
from cclseg_trainer.config import TrainConfig
from cclseg_trainer.models import QuantizedNetwork, build_model, find_variant
from cclseg_trainer.models.blocks import merged_for_inference
from cclseg_trainer.models.segnet import unpooled
from cclseg_trainer.train import train


class Dilated(NetworkContract):
    """What the networks on a dilated encoder share."""

    stride, coarse_stride, edge_strides = 8, 8, (8, 8)


class TestPSPNet(Dilated):
    variant = "psp-lite0"


@pytest.mark.slow
class TestDANet(Dilated):
    variant = "danet-lite0"


@pytest.mark.slow
class TestEMANet(Dilated):
    variant = "ema-lite0"


@pytest.mark.slow
class TestCCNet(Dilated):
    variant = "ccnet-lite0"


@pytest.mark.slow
class TestOCNet(Dilated):
    variant = "ocnet-lite0"


@pytest.mark.slow
class TestDeepLabV3Plus(NetworkContract):
    variant, stride, edge_strides = "deeplab-lite0", 4, (4, 16)


class TestFCN8s(NetworkContract):
    variant, stride, coarse_stride, edge_strides = "fcn8s-lite0", 8, 32, (8, 16, 32)


@pytest.mark.slow
class TestRefineNetLight(NetworkContract):
    variant, stride, coarse_stride = "refinenet-lite0", 4, 32


@pytest.mark.slow
class TestGCN(NetworkContract):
    variant, stride, coarse_stride = "gcn-lite0", 4, 32


class TestSegNet(NetworkContract):
    variant, stride = "segnet", 1


RIVALS = (
    "psp-lite0", "segnet", "danet-lite0", "ema-lite0", "ccnet-lite0", "ocnet-lite0",
    "deeplab-lite0", "fcn8s-lite0", "refinenet-lite0", "gcn-lite0",
)  # fmt: skip
FEW_AT_FIRST = [*RIVALS[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in RIVALS[2:])]


def _pixels(count):
    """Returns network inputs that 8-bit images give, (count, 3, 64, 96)."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 64, 96))
    return ((pixels - 127) / 128).astype(np.float32)


def test_more_levels_of_edges_than_maps_are_refused():
    with pytest.raises(InputError, match=r"psp-lite0 has 2 decoded maps .* got edge_levels 3"):
        build_model("psp-lite0", edge_levels=3)


def test_unpooling_equals_that_by_indices_where_maxima_are_unique():
    torch.manual_seed(0)
    shallow, deep = torch.randn(2, 3, 8, 12), torch.randn(2, 3, 4, 6)
    _, indices = F.max_pool2d(shallow, 2, return_indices=True)
    torch.testing.assert_close(unpooled(deep, shallow), F.max_unpool2d(deep, indices, 2))


@pytest.mark.parametrize("variant", FEW_AT_FIRST)
def test_int8_files_and_training_with_their_rounding_agree(variant):
    """The file for CPUs rounds what training rounds, stays close, and every parameter learns."""
    checkpoint = checkpoint_of(randomised(variant))
    exported, tile = to_onnx(checkpoint), _pixels(1)
    ranges = calibrate(exported, [tile], spec=checkpoint.spec)
    plan = plan_quantization(exported, rules_of("cpu"))
    tensors = {plan.root(name) for name in plan.pairs} - {ranges.input_name}
    expected = [ranges.limits(name) for name in tensors]

    network = QuantizedNetwork(merged_for_inference(checkpoint.build()))
    network.calibrate(torch.from_numpy(tile))
    found = [
        (0.0 if seen.lowest >= 0 else -float(seen.magnitude), float(seen.magnitude))
        for seen in network.ranges.values()
    ]
    # Training counts a map twice where it is padded by nothing; the exporter drops the padding.
    close = np.isclose(np.array(found)[:, None], np.array(expected), rtol=1e-4, atol=1e-6).all(2)
    assert close.any(axis=0).all()
    assert close.any(axis=1).all()

    integers, floats = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"images": tile}
        )[0]
        for m in (emit(exported, ranges, target="cpu"), exported)
    )
    # 20 dB with random weights; one wrong step gives below 10.
    assert np.square(integers - floats).mean() < 0.01 * floats.var()

    sum_of_squares(network.train()(torch.randn(2, 3, 64, 64))).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.slow
@pytest.mark.parametrize("variant", RIVALS)
def test_twenty_steps_lower_the_loss(variant, tiny_dataset, tmp_path):
    config = TrainConfig(
        steps=20, batch_size=4, crop_px=64, val_every=20, warmup_steps=2, pretrained=False
    )
    train(tiny_dataset, find_variant(variant), config, tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        losses = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "loss"]
    # The slowest falls to 0.92 of where it began: each crop is augmented in another way.
    assert np.mean(losses[-5:]) < 0.97 * np.mean(losses[:5])
