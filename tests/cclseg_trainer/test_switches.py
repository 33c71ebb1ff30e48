"""Every switch of the CCL network: it learns, and its file computes the same in every library."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime
import pytest
import torch
from network_contract import checkpoint_of, randomised, sum_of_squares

from cclseg.backends.onnx_runtime import OnnxRuntimeBackend
from cclseg.backends.open_vino import OpenVinoBackend
from cclseg_export.calibrate import calibrate
from cclseg_export.emit import emit
from cclseg_export.emulate import runnable_anywhere
from cclseg_export.to_onnx import save_model, to_onnx
from cclseg_trainer.config import LossConfig
from cclseg_trainer.losses import SegmentationLoss
from cclseg_trainer.model_config import INDEX_NAMES, SWITCHES, choices_of
from cclseg_trainer.models import QuantizedNetwork, autocorrelation, build_model
from cclseg_trainer.models.blocks import merged_for_inference

TINY = {
    "widths": (8, 8, 8, 8, 16),
    "blocks": (0, 0, 0, 0, 1),
    "decoder_widths": (8, 8, 8),
    "groups": 2,
    "group_channels": 4,
    "radii": (0, 1, 0),
    "num_classes": 3,
}
LARGE_ENOUGH_HW = (160, 160)  # for two blocks of the interlaced attention along each axis
FOUR_BANDS = {"in_bands": 4, "band_names": ("red", "green", "blue", "nir")}

# Each row sets several switches; together the rows hold every value of each.
ROWS = {
    "plain": {"fusion": "plain", "up": "bilinear", "activation": "relu"},
    "gate, ppm": {"fusion": "gate", "ctx": "ppm", "adaptive": "lsk", "activation": "gelu"},
    "gather, aspp": {
        "fusion": "gather", "ctx": "aspp", "up": "corr", "auto": "descriptor",
        "activation": "hardswish",
    },
    "full, gcn": {
        "fusion": "full", "ctx": "gcn", "adaptive": "deform", "auto": "rotation",
        "lag_weights": "dynamic", "centred": True,
    },
    "ssd, danet": {"fusion": "full", "metric": "ssd", "ctx": "danet", "auto": "attention"},
    "sad, ema": {"metric": "sad", "ctx": "ema", "auto": "biased-attention"},
    "dense, laplacian": {"dense": "harmonic", "blocks": (0, 0, 0, 4, 0), "head": "laplacian"},
    "criss-cross": {"ctx": "criss-cross", "indices": INDEX_NAMES, **FOUR_BANDS},
    "interlaced": {"ctx": "interlaced", "expansion": 3},
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _few_dilations():
    """Shortens the hierarchy of auto-correlations: tracing takes seconds for each of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autocorrelation, "DILATIONS", ((2,), (1,), (1,)))
        yield


def opened(row):
    """A network of a row: scales open, norms not trivial, nothing that starts at 0."""
    model = randomised("ccl-nano", **(TINY | ROWS[row])).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and not module.weight.any():
            torch.nn.init.normal_(module.weight, 0, 0.1)
    return model


@functools.cache
def exported(row):
    return to_onnx(checkpoint_of(opened(row), input_hw=(64, 96)), keep_operator=True)


def images_for(row, hw=(64, 96)):
    """Inputs that 8-bit images give, (2, C, H, W)."""
    bands = ROWS[row].get("in_bands", 3)
    pixels = np.random.default_rng(0).integers(0, 256, (2, bands, *hw))
    return ((pixels - 127) / 128).astype(np.float32)


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_rows_hold_every_value_of(switch):
    defaults = build_model("ccl-nano").config
    held = {row.get(switch, getattr(defaults, switch)) for row in ROWS.values()}
    assert held == set(choices_of(switch))


@pytest.mark.parametrize("row", ROWS)
def test_three_steps_reach_every_parameter(row):
    torch.manual_seed(0)
    model = build_model("ccl-nano", **(TINY | ROWS[row])).train()
    loss = SegmentationLoss(torch.ones(3), ignore_index=255, config=LossConfig())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    images = torch.from_numpy(images_for(row, LARGE_ENOUGH_HW))
    masks = torch.randint(0, 3, (2, *LARGE_ENOUGH_HW))
    for _ in range(3):  # a scale that is 0 delays by one step what it scales; two may be in line
        optimizer.zero_grad(set_to_none=True)
        value = loss(model(images), masks)
        assert torch.isfinite(value)
        value.backward()
        optimizer.step()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("row", ROWS)
def test_the_merged_form_computes_the_same(row):
    model = opened(row)
    images = torch.from_numpy(images_for(row))
    with torch.inference_mode():
        expected, found = model(images), merged_for_inference(model)(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_files_compute_what_torch_does(row, tmp_path):
    path = tmp_path / "network.onnx"
    save_model(exported(row), path)
    images = images_for(row)
    with torch.inference_mode():
        expected = opened(row)(torch.from_numpy(images)).numpy()
    for backend in (OnnxRuntimeBackend, OpenVinoBackend):
        found = backend.open(path).infer(images)
        # float32 sums in another order; folded norms round once more
        np.testing.assert_allclose(found, expected, atol=3e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("row", ["gate, ppm", "full, gcn", "criss-cross", "interlaced"])
def test_int8_files_stay_close(row):
    model = exported(row)
    images = images_for(row)
    ranges = calibrate(model, [images], spec=checkpoint_of(opened(row)).spec)
    quantized = emit(model, ranges, target="cpu")
    kinds = {node.op_type for node in quantized.graph.node}
    assert "QuantizeLinear" in kinds
    found, expected = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"images": images}
        )[0]
        for m in (runnable_anywhere(quantized), model)
    )
    # 20 dB with random weights; one wrong step gives below 10.
    assert np.square(found - expected).mean() < 0.01 * np.square(expected - expected.mean()).mean()


@pytest.mark.parametrize("row", ROWS)
def test_networks_learn_with_the_rounding_of_int8(row):
    rounding = QuantizedNetwork(merged_for_inference(opened(row)))
    images = torch.from_numpy(images_for(row, LARGE_ENOUGH_HW))
    rounding.calibrate(images)
    output = rounding.train()(images)
    sum_of_squares(output).backward()
    without = [n for n, p in rounding.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
