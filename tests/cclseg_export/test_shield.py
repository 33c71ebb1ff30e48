"""Layers in floating point between quantised ones: no library rounds them on its own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from unet import SMOOTH_SPEC, smooth_tiles, write_unet

from cclseg_export.calibrate import calibrate
from cclseg_export.emit import emit
from cclseg_export.foreign import load_foreign
from cclseg_export.int8 import runnable_here
from cclseg_export.plan import quantizable_nodes
from cclseg_export.shield import shield_float_layers
from cclseg_export.verify.compare import compare
from cclseg_export.verify.figures import Tolerance
from cclseg_export.verify.libraries import find_variants

TILES = smooth_tiles(2)


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """A U-Net with a layer that 8 bits ruin: large weights for a channel that is always 0."""
    path = write_unet(tmp_path_factory.mktemp("unet") / "unet.onnx")
    model, _ = load_foreign(path, SMOOTH_SPEC)
    for stored in model.graph.initializer:
        values = numpy_helper.to_array(stored).copy()
        if stored.name == "conv3.b":
            values[0] = -100
        elif stored.name == "conv5.w":
            values[:, 0] *= 50
        stored.CopyFrom(numpy_helper.from_array(values, stored.name))
    return model


@pytest.fixture(scope="module")
def ranges(unet):
    return calibrate(unet, TILES, spec=SMOOTH_SPEC)


def compared(model):
    """What each library makes of a model, beside ONNX Runtime without optimisation."""
    return compare(model, TILES, find_variants(has_operator=False)[0], tolerance=Tolerance())


def unshielded(model):
    """The same numbers, with one step for all channels: the form that quantisers write."""
    plain = onnx.ModelProto.FromString(model.SerializeToString())
    for stored in plain.graph.initializer:
        if stored.name.endswith(("_by_channel_step", "_by_channel_zero")):
            (value,) = set(numpy_helper.to_array(stored).tolist())
            array = np.asarray(value, helper.tensor_dtype_to_np_dtype(stored.data_type))
            stored.CopyFrom(numpy_helper.from_array(array, stored.name))
    return plain


def alternating(model, first, target="cpu"):
    """Names every second layer with weights."""
    layers = [name for name in quantizable_nodes(model, target=target) if name.startswith("Conv")]
    return layers[first::2]


@pytest.mark.parametrize("target", ["cpu", "openvino"])
@pytest.mark.parametrize("first", [0, 1])
def test_scattered_float_layers_compute_alike_in_every_library(unet, ranges, first, target):
    kept = alternating(unet, first, target)
    found = compared(emit(unet, ranges, target=target, keep_float=kept))
    assert {name: outcome.first for name, outcome in found.outcomes.items()} == {
        "onnxruntime": None, "openvino": None,
    }  # fmt: skip
    assert found.agrees(Tolerance())


def test_without_a_step_per_channel_onnx_runtime_rounds_them(unet, ranges):
    """Where this fails, ONNX Runtime leaves them alone, and the shield may go."""
    kept = alternating(unet, 0)
    found = compared(unshielded(emit(unet, ranges, target="cpu", keep_float=kept)))
    assert found["openvino"].first is None
    assert found["onnxruntime"].first.steps > 1


def test_it_changes_no_number(unet, ranges):
    """Beside the file as it would be without it, the reference gives the same to the last bit."""
    model = emit(unet, ranges, target="cpu", keep_float=alternating(unet, 1))
    reference = find_variants(has_operator=False)[0][0]
    for tile in TILES:
        shielded, plain = (reference.load(m)({"picture": tile}) for m in (model, unshielded(model)))
        np.testing.assert_array_equal(shielded["scores"], plain["scores"])


def test_a_row_of_maps_that_a_float_layer_takes_is_not_rounded(unet, ranges):
    """OpenVINO does not load a row in 8 bits that is read with a step per channel."""
    for kept, is_rounded in ((), True), (("Conv:conv12",), False):
        model = emit(unet, ranges, target="cpu", keep_float=kept)
        assert any(node.input[0] == "skip1" for node in model.graph.node
                   if node.op_type == "QuantizeLinear") == is_rounded  # fmt: skip


def test_what_stands_in_for_another_machine_is_not_rounded_either(unet, ranges):
    kept = alternating(unet, 1, "tensorrt-rtx")
    file = emit(unet, ranges, target="tensorrt-rtx", keep_float=kept)
    assert not any("by_channel" in node.name for node in file.graph.node)  # TensorRT takes one step
    assert compared(runnable_here(file, "tensorrt-rtx"))["onnxruntime"].first is None


def _between_pairs(kind, channels, weight, **attributes):
    """Writes one float layer that takes and gives 8-bit numbers."""
    rng = np.random.default_rng(0)
    shape = [500, channels] if kind == "Gemm" else [2, channels, 6, 6]
    weights = rng.normal(0, rng.uniform(0.02, 1, weight[:1] + [1] * (len(weight) - 1)), weight)
    stored = {"s": np.float32(0.05), "z": np.uint8(128), "w": weights.astype(np.float32)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["x_q"], "q"),
        helper.make_node("DequantizeLinear", ["x_q", "s", "z"], ["x_dq"], "dq"),
        helper.make_node(kind, ["x_dq", "w"], ["y"], "layer", **attributes),
        helper.make_node("Relu", ["y"], ["r"], "relu"),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["out"], "r_q"),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.UINT8, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), shape


@pytest.mark.parametrize(
    ("kind", "weight", "attributes"),
    [
        ("Conv", [6, 4, 3, 3], {}),
        ("Conv", [4, 1, 3, 3], {"group": 4}),
        ("ConvTranspose", [4, 6, 2, 2], {"strides": [2, 2]}),
        ("Gemm", [4, 6], {}),
        ("Gemm", [6, 4], {"transB": 1}),
    ],
)
def test_each_kind_of_layer_is_shielded(kind, weight, attributes):
    model, shape = _between_pairs(kind, 4, weight, **attributes)
    x = np.random.default_rng(1).normal(0, 2, shape).astype(np.float32)
    plain, optimised, *_ = find_variants(has_operator=False)[0]
    before = plain.load(model)({"x": x})["out"].astype(int)
    rounded = optimised.load(model)({"x": x})["out"]
    shield_float_layers(model)
    after = optimised.load(model)({"x": x})["out"]
    assert "x_dq" not in {name for node in model.graph.node for name in node.output}
    assert np.abs(after - before).max() <= 1
    assert (after != before).mean() < 0.1 * (rounded != before).mean()
