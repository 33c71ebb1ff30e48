"""Export: the files compute what the checkpoint does, carry their parity, and can be refused."""

from __future__ import annotations

import json

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from native_libraries import FOLDER, native_library

from cclseg.backends.onnx_runtime import OnnxRuntimeBackend
from cclseg.backends.open_vino import OpenVinoBackend
from cclseg.dataset import open_dataset
from cclseg.errors import BackendError, InputError
from cclseg.spec import ModelSpec
from cclseg_export.quantize import calibrate, to_int8_for_cpu
from cclseg_export.tiles import calibration_tiles
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


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A dataset folder of smooth random images with random labels."""
    root = tmp_path_factory.mktemp("export") / "data"
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for stem in "abc":
        image = cv2.GaussianBlur(rng.integers(0, 256, (256, 288, 3), np.uint8), (0, 0), 3)
        cv2.imwrite(str(root / "images" / f"{stem}.png"), image)
        mask = (image[:, :, 0] // 90).astype(np.uint8)
        cv2.imwrite(str(root / "masks" / f"{stem}.png"), mask)
    classes = [{"index": i, "name": n} for i, n in enumerate(CLASSES)]
    (root / "classes.json").write_text(json.dumps({"classes": classes}))
    (root / "splits.json").write_text(json.dumps({"train": ["a", "b"], "test": ["c"]}))
    return open_dataset(root)


def test_a_network_that_keeps_the_operator_runs_by_body_and_by_kernel(monkeypatch, tmp_path):
    checkpoint = _checkpoint("ccl-lite0")
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 96)).astype(np.float32)
    for keep in (False, True):
        save_model(to_onnx(checkpoint, keep_operator=keep), tmp_path / f"{keep}.onnx")
    expected = OnnxRuntimeBackend.open(tmp_path / "False.onnx").infer(images)
    path = tmp_path / "True.onnx"

    monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(tmp_path / "nothing was compiled"))
    by_body = OnnxRuntimeBackend.open(path).infer(images)
    np.testing.assert_allclose(by_body, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(BackendError, match="compile it with: cclseg ops build"):
        OpenVinoBackend.open(path)

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


def test_calibrated_ranges_are_symmetric_and_that_of_the_input_is_lossless(dataset):
    checkpoint = _checkpoint("ccl-nano")
    tiles = calibration_tiles(dataset.root, checkpoint.spec, most=8)
    ranges = calibrate(to_onnx(checkpoint), tiles, spec=checkpoint.spec)
    low, high = (float(v) for v in ranges.data["images"].range_value)
    assert (low, high) == (-127 / 128, 1)  # 255 steps of 1/128: every pixel value is kept
    measured = [data for name, data in ranges.data.items() if name != "images"]
    lows = [float(data.range_value[0]) for data in measured]
    highs = [float(data.range_value[1]) for data in measured]
    assert all(lo in (0, -hi) for lo, hi in zip(lows, highs, strict=True))


def test_cpu_file_pairs_unsigned_activations_with_signed_weights(dataset):
    checkpoint = _checkpoint("ccl-nano")
    model = to_onnx(checkpoint)
    tiles = calibration_tiles(dataset.root, checkpoint.spec, most=8)
    quantized = to_int8_for_cpu(model, calibrate(model, tiles, spec=checkpoint.spec))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in quantized.graph.initializer}
    points = [
        stored[node.input[2]] for node in quantized.graph.node if node.op_type == "QuantizeLinear"
    ]
    assert {point.dtype for point in points} == {np.dtype(np.uint8)}
    assert {int(point) for point in points} <= {0, 127, 128}
    kernels = [t for name, t in stored.items() if name.endswith("_quantized") and t.ndim == 4]
    assert len(kernels) == sum(node.op_type == "Conv" for node in model.graph.node)
    assert all(kernel.dtype == np.int8 for kernel in kernels)


def test_a_layer_kept_in_floating_point_keeps_its_activation(dataset):
    checkpoint = _checkpoint("ccl-lite0")
    model = to_onnx(checkpoint)
    tiles = calibration_tiles(dataset.root, checkpoint.spec, most=8)
    convolutions = tuple(node.name for node in model.graph.node if node.op_type == "Conv")
    ranges = calibrate(model, tiles, spec=checkpoint.spec)
    kept = to_int8_for_cpu(model, ranges, keep_float=convolutions)
    session, reference = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
        for m in (kept, model)
    )
    found, expected = (s.run(None, {"images": tiles[0]})[0] for s in (session, reference))
    # Only additions and shuffles are quantised: a lost activation would change far more.
    assert np.square(found - expected).mean() < 0.01 * np.square(expected).mean()


def test_too_few_tiles_are_refused(dataset):
    checkpoint = _checkpoint("ccl-nano")
    tiles = calibration_tiles(dataset.root, checkpoint.spec, most=3)
    with pytest.raises(InputError, match="got 3 tiles; expected at least 8"):
        calibrate(to_onnx(checkpoint), tiles, spec=checkpoint.spec)


@pytest.mark.parametrize("content", ["empty", "bands", "small"])
def test_calibration_images_that_do_not_fit_are_refused(tmp_path, content):
    folder = tmp_path / "images"
    folder.mkdir()
    if content != "empty":
        shape = {"bands": (128, 128, 4), "small": (32, 32, 3)}[content]
        cv2.imwrite(str(folder / "a.png"), np.zeros(shape, np.uint8))
    spec = _checkpoint("ccl-nano").spec
    expected = {"empty": "holds no images", "bands": "has 4 bands", "small": "smaller than"}
    with pytest.raises(InputError, match=expected[content]):
        calibration_tiles(folder, spec)
