"""Networks of other programs: read, refused with a reason, and quantised like our own."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from unet import SMOOTH_SPEC, smooth_tiles, write_unet

from cclseg.backends.onnx_runtime import OnnxRuntimeBackend
from cclseg.errors import BackendError, SpecError
from cclseg_export.calibrate import calibrate
from cclseg_export.emit import emit
from cclseg_export.foreign import load_foreign
from cclseg_export.to_onnx import attach_spec, save_model


def run(model, images):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.mark.parametrize("free_size", [False, True])
def test_a_foreign_network_computes_what_its_file_did(tmp_path, free_size):
    path = write_unet(tmp_path / "unet.onnx", free_size=free_size)
    model, spec = load_foreign(path, SMOOTH_SPEC)
    assert spec == SMOOTH_SPEC
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)
    tile = smooth_tiles(1)[0]
    original = onnx.load(path)
    np.testing.assert_allclose(run(model, tile), run(original, tile), rtol=1e-5, atol=1e-5)


def test_an_old_operator_set_is_converted(tmp_path):
    path = write_unet(tmp_path / "unet.onnx")
    old = onnx.load(path)
    old.opset_import[0].version = 13  # whose operators are the same for this network
    onnx.save(old, tmp_path / "old.onnx")
    model, _ = load_foreign(tmp_path / "old.onnx", SMOOTH_SPEC)
    assert model.opset_import[0].version == 17
    tile = smooth_tiles(1)[0]
    np.testing.assert_allclose(run(model, tile), run(old, tile), rtol=1e-5, atol=1e-5)


def test_a_quantised_foreign_network_runs_in_the_runtime(tmp_path):
    model, spec = load_foreign(write_unet(tmp_path / "unet.onnx"), SMOOTH_SPEC)
    tiles = smooth_tiles(8)
    quantized = emit(model, calibrate(model, tiles, spec=spec), target="cpu")
    attach_spec(quantized, spec)
    save_model(quantized, tmp_path / "int8.onnx")
    with OnnxRuntimeBackend.open(tmp_path / "int8.onnx") as backend:
        found = backend.infer(tiles[0])
    expected = run(model, tiles[0])
    # 25 dB: few random channels round to about 29, a wrong step or zero point gives below 10.
    assert np.square(found - expected).mean() < 3e-3 * np.square(expected).mean()


def test_without_a_spec_the_file_must_describe_itself(tmp_path):
    with pytest.raises(SpecError, match="does not say what its classes are"):
        load_foreign(write_unet(tmp_path / "unet.onnx"))


def _with_custom_operator(model):
    node = model.graph.node[0]
    model.opset_import.append(helper.make_opsetid("acme", 1))
    node.domain, node.op_type = "acme", "FastConv"


def _quantised(model):
    model.graph.node[0].op_type = "QLinearConv"


def _halved(model):
    stored = model.graph.initializer[0]
    half = numpy_helper.to_array(stored).astype(np.float16)
    stored.CopyFrom(numpy_helper.from_array(half, stored.name))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_with_custom_operator, r"without a definition: acme.FastConv \(1 x\)"),
        (_quantised, "quantised already"),
        (_halved, "16-bit weights"),
    ],
)
def test_what_cannot_be_quantised_is_refused_with_the_reason(tmp_path, change, reason):
    path = write_unet(tmp_path / "unet.onnx")
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    with pytest.raises(BackendError, match=reason):
        load_foreign(path, SMOOTH_SPEC)


def test_a_damaged_file_is_refused(tmp_path):
    path = write_unet(tmp_path / "unet.onnx")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BackendError, match="no whole ONNX file"):
        load_foreign(path, SMOOTH_SPEC)
