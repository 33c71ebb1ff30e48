"""Conversion to ONNX: the graph computes what torch does and holds nothing else."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime
import pytest
import torch
from export_material import random_checkpoint
from native_libraries import FOLDER, native_library
from unet import smooth_tiles

from cclseg.backends.onnx_runtime import OnnxRuntimeBackend
from cclseg.backends.open_vino import OpenVinoBackend
from cclseg.errors import BackendError, InputError
from cclseg.spec import ModelSpec
from cclseg_export.calibrate import calibrate
from cclseg_export.emit import emit
from cclseg_export.emulate import runnable_anywhere
from cclseg_export.targets import TARGETS
from cclseg_export.tiles import calibration_tiles
from cclseg_export.to_onnx import convert, save_model, to_onnx

CLASSES = ("red", "green", "blue")


def _checkpoint(variant, *, fusion="gate"):
    return random_checkpoint(variant, CLASSES, fusion=fusion)


@functools.cache
def _exported(variant, *, fusion="gate", **options):
    """Tracing takes seconds; whoever changes the model takes a copy."""
    return to_onnx(_checkpoint(variant, fusion=fusion), **options)


def _largest_difference(model, checkpoint, images):
    """Over the largest logit."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["logits"], {"images": images})
    with torch.inference_mode():
        expected = checkpoint.build()(torch.from_numpy(images)).numpy()
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


@functools.cache
def _ranges(variant):
    model = _exported(variant, keep_operator=True)
    return calibrate(model, smooth_tiles(8), spec=_checkpoint(variant).spec)


# float32 sums in another order; folded norms round once more
SAME = 2e-4


def test_a_network_that_keeps_the_operator_runs_by_body_and_by_kernel(monkeypatch, tmp_path):
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 96)).astype(np.float32)
    for keep in (False, True):
        save_model(_exported("ccl-lite0", keep_operator=keep), tmp_path / f"{keep}.onnx")
    expected = OnnxRuntimeBackend.open(tmp_path / "False.onnx").infer(images)
    path = tmp_path / "True.onnx"

    monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(tmp_path / "nothing was compiled"))
    for backend in (OnnxRuntimeBackend, OpenVinoBackend):
        by_body = backend.open(path).infer(images)
        np.testing.assert_allclose(by_body, expected, rtol=1e-4, atol=1e-6)

    monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(FOLDER))
    for backend in (OnnxRuntimeBackend, OpenVinoBackend):
        native_library(backend.name)
        by_kernel = backend.open(path).infer(images)
        np.testing.assert_allclose(by_kernel, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("ccl-lite0", {"keep_operator": False}),
        ("ccl-lite0", {"keep_operator": True}),
        ("ccl-nano", {"keep_operator": False}),
        ("ccl-nano", {"fusion": "plain"}),
    ],
)
def test_onnx_computes_what_torch_does(variant, options):
    checkpoint = _checkpoint(variant, fusion=options.get("fusion", "gate"))
    for batch in (1, 3):
        images = np.random.default_rng(batch).normal(size=(batch, 3, 64, 96)).astype(np.float32)
        assert _largest_difference(_exported(variant, **options), checkpoint, images) < SAME


@pytest.mark.real_data
def test_onnx_computes_what_torch_does_on_photographs(real_data):
    checkpoint = _checkpoint("ccl-nano")
    tiles = calibration_tiles(real_data / "dubai", checkpoint.spec, most=4).tiles
    model = _exported("ccl-nano", keep_operator=False)
    assert _largest_difference(model, checkpoint, np.concatenate(tiles)) < SAME


@pytest.mark.slow
def test_height_and_width_can_be_left_free():
    model = _exported("ccl-nano", free_size=True, keep_operator=True)
    checkpoint = _checkpoint("ccl-nano")
    for shape in ((1, 3, 64, 96), (2, 3, 32, 32), (1, 3, 160, 64)):
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        assert _largest_difference(model, checkpoint, images) < SAME


def test_the_graph_holds_no_training_parts():
    model = _exported("ccl-nano", keep_operator=False)
    operators = {node.op_type for node in model.graph.node}
    assert operators.isdisjoint({"BatchNormalization", "Dropout", "ConvTranspose", "Identity"})
    assert [output.name for output in model.graph.output] == ["logits"]
    depthwise = [
        node
        for node in model.graph.node
        if node.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]
    assert len(depthwise) == 9  # one merged kernel per multi-scale block, one in the head


def test_the_file_says_everything_about_itself():
    model = _exported("ccl-nano", keep_operator=False)
    metadata = {p.key: p.value for p in model.metadata_props}
    assert ModelSpec.from_metadata(metadata, name="x") == _checkpoint("ccl-nano").spec
    assert not any("/" in value and "home" in value for value in metadata.values())


def test_a_size_that_the_network_cannot_halve_is_refused():
    with pytest.raises(InputError, match="expected multiples of 32"):
        to_onnx(_checkpoint("ccl-nano"), input_hw=(100, 96))


class _Eigenvalues(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.eigvalsh(x @ x.mT).unsqueeze(-1) * x


class _Branching(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (
            _Eigenvalues,
            r"no counterpart of torch's operator aten._linalg_eigh.default, used in 1.0;",
        ),
        (_Branching, "cannot trace the network .* must not depend on the values"),
    ],
)
def test_what_onnx_lacks_is_named_with_its_place(layer, reason):
    network = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Sequential(layer())).eval()
    with pytest.raises(BackendError, match=reason):
        convert(network, torch.zeros(2, 3, 8, 8), free_size=False, keep_operator=False)


@pytest.mark.parametrize("variant", ["ccl-nano", "ccl-lite0"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_network_with_the_operator_goes_to_every_target(variant, target):
    model = _exported(variant, keep_operator=True)
    tiles = smooth_tiles(8)
    quantized = emit(model, _ranges(variant), target=target)
    sessions = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
        for m in (runnable_anywhere(quantized), model)
    ]
    found, expected = (s.run(None, {"images": tiles[0]})[0] for s in sessions)
    # 20 dB after 40 to 70 layers with random weights; one wrong step gives below 10.
    assert np.square(found - expected).mean() < 0.01 * np.square(expected).mean()
