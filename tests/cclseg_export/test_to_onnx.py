"""Conversion to ONNX: the graph computes what torch does and holds nothing else."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from native_libraries import FOLDER, native_library
from unet import smooth_tiles

from cclseg.backends.onnx_runtime import OnnxRuntimeBackend
from cclseg.backends.open_vino import OpenVinoBackend
from cclseg.spec import ModelSpec
from cclseg_export.calibrate import calibrate
from cclseg_export.emit import emit
from cclseg_export.emulate import runnable_anywhere
from cclseg_export.targets import TARGETS
from cclseg_export.to_onnx import save_model, to_onnx
from cclseg_trainer.checkpoint import Checkpoint
from cclseg_trainer.config import TrainConfig
from cclseg_trainer.models import build_model

CLASSES = ("red", "green", "blue")


def _checkpoint(variant, *, fusion="gate", bands=3):
    """A network with random weights whose gates are open and whose norms are not trivial."""
    torch.manual_seed(0)
    model = build_model(variant, num_classes=3, fusion=fusion, in_bands=bands)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
        if hasattr(module, "gamma"):
            torch.nn.init.normal_(module.gamma)
    spec = ModelSpec(
        name=variant,
        class_names=CLASSES,
        bands=tuple(f"band{i}" for i in range(bands)),
        mean=(127.0,) * bands,
        std=(128.0,) * bands,
        input_hw=(64, 96),
    )
    return Checkpoint(model.config, TrainConfig(), spec, model.state_dict(), 1, {})


def test_a_network_that_keeps_the_operator_runs_by_body_and_by_kernel(monkeypatch, tmp_path):
    checkpoint = _checkpoint("ccl-lite0")
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 96)).astype(np.float32)
    for keep in (False, True):
        save_model(to_onnx(checkpoint, keep_operator=keep), tmp_path / f"{keep}.onnx")
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


@pytest.mark.parametrize("variant", ["ccl-lite0", "ccl-nano"])
@pytest.mark.parametrize("fusion", ["plain", "gate"])
def test_onnx_computes_what_torch_does(variant, fusion):
    checkpoint = _checkpoint(variant, fusion=fusion)
    model = to_onnx(checkpoint)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for batch in (1, 3):
        images = np.random.default_rng(batch).normal(size=(batch, 3, 64, 96)).astype(np.float32)
        (found,) = session.run(["logits"], {"images": images})
        with torch.inference_mode():
            expected = checkpoint.build()(torch.from_numpy(images)).numpy()
        # float32 sums in another order; folded norms round once more
        np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_the_graph_holds_no_training_parts():
    model = to_onnx(_checkpoint("ccl-nano"))
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
    checkpoint = _checkpoint("ccl-nano")
    metadata = {p.key: p.value for p in to_onnx(checkpoint).metadata_props}
    assert ModelSpec.from_metadata(metadata, name="x") == checkpoint.spec
    assert not any("/" in value and "home" in value for value in metadata.values())


@pytest.mark.parametrize("variant", ["ccl-nano", "ccl-lite0"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_network_with_the_operator_goes_to_every_target(variant, target):
    checkpoint = _checkpoint(variant)
    model = to_onnx(checkpoint, keep_operator=True)
    tiles = smooth_tiles(8)
    quantized = emit(model, calibrate(model, tiles, spec=checkpoint.spec), target=target)
    sessions = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
        for m in (runnable_anywhere(quantized), model)
    ]
    found, expected = (s.run(None, {"images": tiles[0]})[0] for s in sessions)
    # 20 dB after 40 to 70 layers with random weights; one wrong step gives below 10.
    assert np.square(found - expected).mean() < 0.01 * np.square(expected).mean()
