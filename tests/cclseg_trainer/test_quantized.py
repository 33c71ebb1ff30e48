"""Fake quantisation: the numbers of the INT8 file, gradients that flow, runs that resume."""

from __future__ import annotations

import copy
import csv
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from network_contract import checkpoint_of, randomised, sum_of_squares
from networks import write_graph
from onnx import helper, numpy_helper
from torch.nn import functional as F

from cclseg.errors import InputError
from cclseg.spec import ModelSpec
from cclseg_export.calibrate import calibrate
from cclseg_export.emit import emit
from cclseg_export.plan import plan_quantization
from cclseg_export.targets import rules_of
from cclseg_export.to_onnx import to_onnx
from cclseg_trainer.checkpoint import load_checkpoint
from cclseg_trainer.config import QUANTIZED_RECIPE, AugmentConfig, TrainConfig
from cclseg_trainer.models import VARIANTS, QuantizedNetwork
from cclseg_trainer.models.blocks import merged_for_inference
from cclseg_trainer.models.quantized import QuantizedRange, quantized_weight
from cclseg_trainer.train import train

NANO = VARIANTS["ccl-nano"]
# Those whose parts differ; the others are wider or deeper.
KINDS = (
    *("ccl-nano", "ccl-lite0", "unet-r18", "unet-lite0", "linknet-r18", "pidnet-s"),
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            *("segformer-b0", "unetformer-lite0", "bisenetv2", "hrnet-small"),
            *("gscnn-lite0", "spanet-lite0"),
        )
    ),
)
QUICK = TrainConfig(
    steps=6, batch_size=2, crop_px=64, val_every=3, warmup_steps=2, pretrained=False
)
QUICK_QUANTIZED = replace(
    QUANTIZED_RECIPE, steps=6, batch_size=2, crop_px=64, val_every=3, warmup_steps=2
)


def _session(model, *, integer_kernels=False):
    """Opens a file; without integer kernels it computes in floating point what its pairs say."""
    options = onnxruntime.SessionOptions()
    if not integer_kernels:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _pixels(count, *, seed=0):
    """Returns network inputs that 8-bit images give, (count, 3, 64, 96)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, 64, 96))
    return ((pixels - 127) / 128).astype(np.float32)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_range_rounds_as_quantize_linear_does(low):
    step, zero = (3.7 / 127, 128) if low < 0 else (3.7 / 255, 0)
    values = np.linspace(-2, 5, 4001, dtype=np.float32)  # with some beyond the range: clipped
    values = values[np.abs(values / step % 1 - 0.5) > 1e-3]  # float32 decides at the borders
    rounding = QuantizedRange()
    rounding.observe(torch.tensor([low, 3.7]))
    found = rounding.eval()(torch.from_numpy(values)).numpy()
    integers = np.clip(np.rint(values / step) + zero, 0, 255)
    np.testing.assert_allclose(found, (integers - zero) * step, atol=1e-6)


def test_weights_take_signed_steps_per_output_channel():
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 5, 5) * torch.tensor([0.01, 1.0, 30.0, 0.0]).reshape(4, 1, 1, 1)
    found = quantized_weight(weight)
    steps = weight.abs().amax((1, 2, 3)) / 127
    for channel in range(3):
        integers = found[channel] / steps[channel]
        torch.testing.assert_close(integers, integers.round(), rtol=0, atol=1e-3)
        assert float((found[channel] - weight[channel]).abs().max() / steps[channel]) <= 0.5001
    assert not found[3].any()


@pytest.mark.parametrize("integer_kernels", [False, True])
def test_a_layer_computes_what_the_file_for_cpus_does(tmp_path, integer_kernels):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(0, 0.2, (8, 3, 3, 3)), rng.normal(0, 0.5, 8)
    weight, bias = weight.astype(np.float32), bias.astype(np.float32)
    path = write_graph(
        tmp_path / "layer.onnx",
        [
            helper.make_node("Conv", ["images", "w", "b"], ["sum"], name="conv", pads=[1] * 4),
            helper.make_node("Relu", ["sum"], ["logits"], name="relu"),
        ],
        inputs={"images": [1, 3, 64, 96]},
        outputs={"logits": [1, 8, 64, 96]},
        weights=[numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    model, tile = onnx.load(path), _pixels(1)
    ranges = calibrate(model, [tile], spec=ModelSpec(name="layer", class_names=("a",)))
    session = _session(emit(model, ranges, target="cpu"), integer_kernels=integer_kernels)
    (expected,) = session.run(None, {"images": tile})

    rounding = QuantizedRange()
    rounding.observe(torch.tensor([0, ranges.magnitudes["logits"]]))
    summed = F.conv2d(
        torch.from_numpy(tile),
        quantized_weight(torch.from_numpy(weight)),
        torch.from_numpy(bias),
        padding=1,
    )
    found = rounding.eval()(F.relu(summed)).numpy()
    # The file rounds the bias too, to a fraction of a step: a sum close to the border of two steps
    # may fall to either side.
    step = ranges.magnitudes["logits"] / 255
    integers = np.abs(found - expected) / step
    assert integers.max() < 1.001
    assert (integers > 0.001).mean() < 0.01


@pytest.mark.parametrize("variant", KINDS)
def test_it_rounds_the_tensors_that_the_file_for_cpus_rounds(variant):
    checkpoint = checkpoint_of(randomised(variant))
    tile = _pixels(1)
    exported = to_onnx(checkpoint)
    ranges = calibrate(exported, [tile], spec=checkpoint.spec)
    plan = plan_quantization(exported, rules_of("cpu"))
    tensors = {plan.root(name) for name in plan.pairs} - {ranges.input_name}
    expected = sorted(ranges.limits(name) for name in tensors)

    network = QuantizedNetwork(merged_for_inference(checkpoint.build()))
    network.calibrate(torch.from_numpy(tile))
    found = sorted(
        (0.0 if seen.lowest >= 0 else -float(seen.magnitude), float(seen.magnitude))
        for seen in network.ranges.values()
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("variant", KINDS)
def test_gradients_reach_every_parameter_through_the_rounding(variant):
    network = QuantizedNetwork(merged_for_inference(randomised(variant))).train()
    output = network(torch.randn(2, 3, 64, 64))
    sum_of_squares(output).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_a_copy_shares_no_weights():
    network = QuantizedNetwork(merged_for_inference(randomised("ccl-nano"))).eval()
    copied = copy.deepcopy(network)
    x = torch.randn(1, 3, 64, 64)
    before = network(x)
    with torch.no_grad():
        copied.network.head[2].bias += 1
    torch.testing.assert_close(network(x), before, rtol=0, atol=0)
    assert not torch.allclose(copied(x), before)


def test_ranges_follow_the_largest_magnitude_and_stay_when_not_trained():
    rounding = QuantizedRange().train()
    rounding(torch.tensor([0.5, 2.0]))
    rounding(torch.tensor([0.5, 1.0]))
    assert 1.9 < float(rounding.magnitude) < 2.0
    rounding.eval()(torch.tensor([-9.0, 9.0]))
    assert 1.9 < float(rounding.magnitude) < 2.0
    assert float(rounding.lowest) == 0


@pytest.fixture(scope="module")
def trained(tiny_dataset, tmp_path_factory):
    """A checkpoint of a network that knows the colours, so that its scores are far from 0."""
    config = replace(
        QUICK, steps=60, val_every=60, batch_size=4, augment=AugmentConfig(photometric=0.3)
    )
    return train(tiny_dataset, NANO, config, tmp_path_factory.mktemp("run")).best


def _quantize(dataset, trained, folder, **changes):
    origin = load_checkpoint(trained)
    config = replace(QUICK_QUANTIZED, **changes)
    return train(dataset, origin.model_config, config, folder, start=trained)


def test_the_checkpoint_of_a_quantised_run_exports_as_any_other(tiny_dataset, trained, tmp_path):
    result = _quantize(tiny_dataset, trained, tmp_path / "run")
    checkpoint = load_checkpoint(result.best)
    assert checkpoint.train_config.quantize
    images = _pixels(2)
    checkpoint = replace(checkpoint, spec=replace(checkpoint.spec, input_hw=(64, 96)))
    session = _session(to_onnx(checkpoint))
    with torch.inference_mode():
        expected = checkpoint.build()(torch.from_numpy(images)).numpy()
    (found,) = session.run(["logits"], {"images": images})
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_it_learns_the_scores_of_its_origin_not_the_labels(tiny_dataset, trained, tmp_path):
    _quantize(tiny_dataset, trained, tmp_path, steps=1, val_every=1)
    with (tmp_path / "metrics.csv").open() as file:
        (loss,) = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "loss"]
    assert 0 < loss < 0.01  # what rounding moves; the scores themselves are far from 0


def test_what_rounding_costs_without_training_is_measured_first(tiny_dataset, trained, tmp_path):
    told = []

    class Listener:
        def on_step(self, step, steps, loss):
            pass

        def on_validation(self, step, report, *, is_best):
            told.append((step, is_best))

    origin = load_checkpoint(trained)
    result = train(
        tiny_dataset,
        origin.model_config,
        QUICK_QUANTIZED,
        tmp_path,
        start=trained,
        progress=Listener(),
    )
    assert [step for step, _ in told] == [0, 3, 6]
    assert result.step == [step for step, is_best in told if is_best][-1]


def test_a_quantised_run_resumes_to_the_weights_of_an_uninterrupted_one(
    tiny_dataset, trained, tmp_path
):
    whole = _quantize(tiny_dataset, trained, tmp_path / "whole")
    origin = load_checkpoint(trained)

    class StopAtFive:
        def on_step(self, step, steps, loss):
            if step == 5:
                raise KeyboardInterrupt

        def on_validation(self, step, report, *, is_best):
            pass

    with pytest.raises(KeyboardInterrupt):
        train(
            tiny_dataset,
            origin.model_config,
            QUICK_QUANTIZED,
            tmp_path / "stopped",
            start=trained,
            progress=StopAtFive(),
        )
    resumed = _quantize(tiny_dataset, trained, tmp_path / "stopped")
    expected, found = (load_checkpoint(r.best.parent / "last.pt") for r in (whole, resumed))
    assert expected.step == found.step == 6
    assert expected.weights.keys() == found.weights.keys()
    for name, value in expected.weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=0, atol=0)


def test_quantisation_begins_with_a_trained_network_of_the_same_kind(
    tiny_dataset, trained, tmp_path
):
    with pytest.raises(InputError, match="give its checkpoint: --start"):
        train(tiny_dataset, NANO, QUICK_QUANTIZED, tmp_path / "run")
    other = replace(NANO, fusion="plain")
    with pytest.raises(InputError, match="leave out --model and the options"):
        train(tiny_dataset, other, QUICK_QUANTIZED, tmp_path / "run", start=trained)
    renamed = replace(tiny_dataset, class_names=("red", "blue", "green"))
    with pytest.raises(InputError, match="knows the classes red, green, blue"):
        train(renamed, NANO, QUICK_QUANTIZED, tmp_path / "run", start=trained)
    assert not (tmp_path / "run").exists()
