"""Rivals with a backbone, branches or attention of their own: contract, INT8, learning."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from network_contract import NetworkContract, checkpoint_of, randomised

from cclseg.errors import InputError
from cclseg_export.calibrate import calibrate
from cclseg_export.emit import emit
from cclseg_export.to_onnx import to_onnx
from cclseg_trainer.config import AugmentConfig, TrainConfig
from cclseg_trainer.models import build_model, cost_of, find_variant
from cclseg_trainer.models.gscnn import GatedStep
from cclseg_trainer.models.pidnet import BoundaryGuide, PixelAttention
from cclseg_trainer.models.segformer import EfficientAttention
from cclseg_trainer.models.unetformer import WindowAttention
from cclseg_trainer.train import train


class TestPIDNet(NetworkContract):
    variant, stride = "pidnet-s", 8
    coarse_stride, edge_strides = 8, (8,)


class TestSegFormer(NetworkContract):
    variant, stride = "segformer-b0", 4
    coarse_stride, edge_strides = 32, (4, 8, 16)


@pytest.mark.slow
class TestUNetFormer(NetworkContract):
    variant, stride = "unetformer-lite0", 4
    coarse_stride, edge_strides = 32, (4, 8, 16)


@pytest.mark.slow
class TestBiSeNetV2(NetworkContract):
    variant, stride = "bisenetv2", 8
    coarse_stride, edge_strides = 32, (8, 8)


@pytest.mark.slow
class TestHRNet(NetworkContract):
    variant, stride = "hrnet-small", 4
    coarse_stride, edge_strides = 32, (4, 8, 16)


@pytest.mark.slow
class TestGatedSCNN(NetworkContract):
    variant, stride = "gscnn-lite0", 4
    coarse_stride, edge_strides = 32, (4,)


@pytest.mark.slow
class TestSPANet(NetworkContract):
    variant, stride = "spanet-lite0", 4
    coarse_stride, edge_strides = 32, (4, 8, 16)


RIVALS = (
    "pidnet-s", "segformer-b0", "unetformer-lite0", "bisenetv2", "hrnet-small", "gscnn-lite0",
    "spanet-lite0",
)  # fmt: skip


# Millions of parameters and GMAC as the authors state them.
PAPERS = {
    "pidnet-s": (19, (1024, 2048), 7.6, 47.6),
    "segformer-b0": (150, (512, 512), 3.8, 8.4),
    "hrnet-small": (19, (1024, 2048), 1.5, 31.1),
}


@pytest.mark.parametrize("variant", PAPERS)
def test_they_cost_what_their_papers_say(variant):
    classes, input_hw, parameters, macs = PAPERS[variant]
    cost = cost_of(build_model(variant, num_classes=classes), input_hw=input_hw)
    assert cost.deployed_parameters / 1e6 == pytest.approx(parameters, rel=0.05)
    assert cost.macs / 1e9 == pytest.approx(macs, rel=0.08)


def test_a_network_with_one_map_for_edges_refuses_more_levels():
    with pytest.raises(InputError, match="got edge_levels 2, expected at most 1"):
        build_model("pidnet-s", edge_levels=2)


@pytest.mark.slow
@pytest.mark.parametrize("variant", RIVALS)
def test_the_int8_file_stays_close(variant):
    checkpoint = checkpoint_of(randomised(variant))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 96))
    tile = ((pixels - 127) / 128).astype(np.float32)
    exported = to_onnx(checkpoint)
    quantized = emit(exported, calibrate(exported, [tile], spec=checkpoint.spec), target="cpu")
    found, expected = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"images": tile}
        )[0]
        for m in (quantized, exported)
    )
    # 20 dB with random weights; one wrong step gives below 10.
    assert np.square(found - expected).mean() < 0.01 * expected.var()


@pytest.mark.slow
@pytest.mark.parametrize("variant", RIVALS)
def test_twenty_steps_lower_the_loss(variant, tiny_dataset, tmp_path):
    augment = AugmentConfig(
        scale=(0.8, 1.2), paste_share=0, photometric=0, blur_share=0, noise_share=0
    )
    config = TrainConfig(
        steps=20, batch_size=4, crop_px=64, val_every=20, warmup_steps=2, pretrained=False
    )
    train(tiny_dataset, find_variant(variant), replace(config, augment=augment), tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        losses = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "loss"]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_pixel_attention_mixes_by_the_agreement_of_details_and_context():
    torch.manual_seed(0)
    block = PixelAttention(8, 16).eval()
    detail, context = torch.randn(2, 8, 6, 4), torch.randn(2, 16, 3, 2)
    with torch.inference_mode():
        compressed = block.compress(context)
        enlarge = torch.nn.Upsample(scale_factor=2, mode="bilinear")
        keys = enlarge(block.key(compressed))
        share = torch.einsum("nchw,nchw->nhw", block.query(detail), keys).sigmoid()[:, None]
        expected = torch.lerp(detail, enlarge(compressed), share)
        torch.testing.assert_close(block(detail, context), expected)


def test_details_count_at_boundaries_and_context_elsewhere():
    torch.manual_seed(0)
    block = BoundaryGuide(4).eval()
    detail, context = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    sure = torch.full_like(detail, 1e3)
    with torch.inference_mode():
        at_boundary = (block.detail(detail) + block.context(context + detail)).relu()
        elsewhere = (block.detail(detail + context) + block.context(context)).relu()
        torch.testing.assert_close(block(detail, context, sure), at_boundary)
        torch.testing.assert_close(block(detail, context, -sure), elsewhere)


def test_efficient_attention_is_that_of_torch_over_fewer_keys():
    torch.manual_seed(0)
    block = EfficientAttention(16, heads=2, reduction=2).eval()
    x = torch.randn(2, 16, 4, 6)
    with torch.inference_mode():
        queries, keys, values = (
            layer(y).reshape(2, 2, 8, -1).transpose(2, 3)
            for layer, y in (
                (block.query, x),
                (block.key, block.reduce(x)),
                (block.value, block.reduce(x)),
            )
        )
        assert keys.shape[2] == 6
        seen = torch.nn.functional.scaled_dot_product_attention(queries, keys, values)
        expected = block.project(seen.transpose(2, 3).reshape(2, 16, 4, 6))
        torch.testing.assert_close(block(x), expected)


def test_windows_attend_within_themselves_with_a_bias_per_offset():
    torch.manual_seed(0)
    block = WindowAttention(8, heads=2, window=4).eval()
    torch.nn.init.normal_(block.bias)
    x = torch.randn(1, 8, 8, 4)  # two windows
    with torch.inference_mode():
        below = block(x)[:, :, 4:]
        queries, keys, values = (
            part.reshape(1, 2, 4, 16).transpose(2, 3)
            for part in block.projections(x[:, :, 4:]).chunk(3, 1)
        )
        bias = torch.empty(2, 16, 16)
        for a in range(16):
            for b in range(16):
                down, right = a // 4 - b // 4, a % 4 - b % 4
                bias[:, a, b] = block.bias[:, 7 * (down + 3) + right + 3]
        seen = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, bias)
        torch.testing.assert_close(below, seen.transpose(2, 3).reshape(1, 8, 4, 4))


def test_windows_take_sizes_that_are_no_multiple_of_them():
    block = WindowAttention(8, heads=2, window=4).eval()
    assert block(torch.randn(1, 8, 2, 5)).shape == (1, 8, 2, 5)


def test_a_closed_gate_passes_shapes_once_and_an_open_one_twice():
    torch.manual_seed(0)
    block = GatedStep(8, 4, deep_channels=6).eval()
    x, deep = torch.randn(1, 8, 4, 4), torch.randn(1, 6, 2, 2)
    narrowed = block.narrow(block.block(x))
    for bias, factor in ((-1e3, 1), (1e3, 2)):
        torch.nn.init.constant_(block.gate[-1].bias, bias)
        torch.testing.assert_close(block(x, deep), block.mix(factor * narrowed))
