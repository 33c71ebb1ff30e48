"""16-bit files: half the size, the same interface, and numbers that stay within their range."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from unet import SMOOTH_SPEC, smooth_tiles, write_unet

from cclseg.errors import InputError
from cclseg_export.calibrate import calibrate
from cclseg_export.emit import emit
from cclseg_export.emulate import runnable_anywhere
from cclseg_export.foreign import load_foreign
from cclseg_export.graph import opset_of
from cclseg_export.half import to_half
from cclseg_export.operator import attach_function


def run(model, images):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    return load_foreign(write_unet(tmp_path_factory.mktemp("unet") / "unet.onnx"), SMOOTH_SPEC)[0]


def network(nodes, weights, *, opset=18):
    """A network of three-band images and any number of logits."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ("n", 3, "h", "w"))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("n", "k", "i", "j"))],
        [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("cclseg", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_a_unet_computes_what_it_did_in_half_the_file(unet):
    half = to_half(unet)
    assert half.ByteSize() < 0.6 * unet.ByteSize()
    tile = smooth_tiles(1)[0]
    expected = run(unet, tile)
    # Twelve layers of numbers with 11 bits.
    np.testing.assert_allclose(run(half, tile), expected, atol=0.01 * np.abs(expected).max())


def test_input_and_output_keep_name_and_type(unet):
    half = to_half(unet)
    for infos in ("input", "output"):
        assert list(getattr(half.graph, infos)) == list(getattr(unet.graph, infos))


def test_every_weight_but_the_scales_of_a_resize_has_16_bits(unet):
    half = to_half(unet)
    (resize,) = (n for n in half.graph.node if n.op_type == "Resize")
    wide = {t.name for t in half.graph.initializer if t.data_type == TensorProto.FLOAT}
    assert wide == {resize.input[2]}


def test_correlations_one_behind_the_other_keep_their_bodies():
    options = {"domain": "cclseg", "radius": 1, "dilation": 1, "groups": 1, "normalize": 1}
    nodes = [
        helper.make_node("LocalCorrelation", ["images", "images"], ["r"], "first", **options),
        helper.make_node("Relu", ["r"], ["s"], "relu"),
        helper.make_node("LocalCorrelation", ["s", "s"], ["logits"], "second", **options),
    ]
    model = attach_function(network(nodes, {}))
    tile = smooth_tiles(1)[0]
    half = to_half(model)
    assert half.functions
    np.testing.assert_allclose(run(half, tile), run(model, tile), atol=3e-3)


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        # A black image must not divide by zero.
        (
            [
                helper.make_node("Mul", ["images", "images"], ["square"], "square"),
                helper.make_node("Add", ["square", "eps"], ["sum"], "sum"),
                helper.make_node("Div", ["images", "sum"], ["logits"], "ratio"),
            ],
            {"eps": 1e-9},
        ),
        ([helper.make_node("Min", ["images", "huge"], ["logits"], "cut")], {"huge": 3e38}),
    ],
)
def test_constants_beyond_16_bits_leave_finite_numbers(nodes, weights):
    half = to_half(network(nodes, weights))
    assert np.isfinite(run(half, np.zeros((1, 3, 4, 4), np.float32))).all()


def test_the_arithmetic_of_shapes_stays_as_it_is():
    """Sizes of a resize, computed from the input's own in floating point."""
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"], "shape"),
        helper.make_node("Cast", ["shape"], ["real"], "real", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "factors"], ["large"], "large"),
        helper.make_node("Cast", ["large"], ["sizes"], "sizes", to=TensorProto.INT64),
        helper.make_node("Resize", ["images", "", "", "sizes"], ["logits"], "resize",
                         mode="nearest"),
    ]  # fmt: skip
    model = network(nodes, {"factors": [1, 1, 2, 2]})
    half = to_half(model)
    images = np.arange(3 * 2500 * 2, dtype=np.float32).reshape(1, 3, 2500, 2) % 7
    np.testing.assert_array_equal(run(half, images), run(model, images))


def test_a_quantised_model_is_refused(unet):
    ranges = calibrate(unet, smooth_tiles(1), spec=SMOOTH_SPEC)
    with pytest.raises(InputError, match="is quantised"):
        to_half(emit(unet, ranges, target="cpu"))


@pytest.fixture(scope="module")
def ranges(unet):
    return calibrate(unet, smooth_tiles(4), spec=SMOOTH_SPEC)


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_a_rest_in_16_bits_computes_what_one_in_32_does(unet, ranges, target):
    full = emit(unet, ranges, target=target)
    mixed = emit(unet, ranges, target=target, half=True)
    assert opset_of(mixed) >= 19
    assert mixed.ByteSize() < full.ByteSize()
    wide = {t.name for t in mixed.graph.initializer if t.data_type == TensorProto.FLOAT}
    (resize,) = (n for n in mixed.graph.node if n.op_type == "Resize")
    assert wide == {resize.input[2]}
    tile = smooth_tiles(1)[0]
    expected, found = run(full, tile), run(mixed, tile)
    assert found.dtype == np.float32
    errors = np.abs(found - expected)
    assert errors.mean() < 0.01 * np.abs(expected).max()


def test_integers_are_chosen_for_the_steps_that_are_stored(unet, ranges):
    """A step that is rounded after its integers would move every weight by its own error."""
    mixed = emit(unet, ranges, target="tensorrt", half=True)
    stored = {t.name: numpy_helper.to_array(t) for t in mixed.graph.initializer}
    original = {t.name: numpy_helper.to_array(t) for t in unet.graph.initializer}
    for node in unet.graph.node:
        if node.op_type == "Conv":
            name = f"{node.name}.weight"
            steps = stored[f"{name}_step"].astype(np.float32)[:, None, None, None]
            error = stored[f"{name}_q"] * steps - original[node.input[1]]
            assert (np.abs(error) <= 0.501 * steps + 1e-3 * np.abs(original[node.input[1]])).all()


def test_steps_below_the_smallest_number_of_16_bits_stay_finite(unet, ranges):
    work = onnx.ModelProto.FromString(unet.SerializeToString())
    for tensor in work.graph.initializer:
        if tensor.name == "conv0.w":
            tiny = 1e-9 * numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(tiny, tensor.name))
    mixed = emit(work, ranges, target="tensorrt", half=True)
    assert np.isfinite(run(mixed, smooth_tiles(1)[0])).all()


def test_a_rest_in_16_bits_is_for_gpus(unet, ranges):
    with pytest.raises(InputError, match="is for tensorrt and tensorrt-rtx"):
        emit(unet, ranges, target="cpu", half=True)


@pytest.mark.parametrize("kept", [(), ("correlate",)])
def test_a_plugin_between_integers_and_16_bits_is_measured_in_32(kept):
    """One correlation takes integers and gives 16 bits, the other takes what is left to it."""
    options = {"domain": "cclseg", "radius": 1, "dilation": 1, "groups": 1, "normalize": 1}
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], "a", pads=[1] * 4),
        helper.make_node("LocalCorrelation", ["a", "a"], ["r"], "correlate", **options),
        helper.make_node("LocalCorrelation", ["r", "r"], ["s"], "again", **options),
        helper.make_node("Conv", ["s", "v"], ["logits"], "head"),
    ]
    weights = {"w": rng.normal(0, 0.3, (4, 3, 3, 3)), "v": rng.normal(0, 0.3, (3, 9, 1, 1))}
    model = attach_function(network(nodes, weights))
    tiles = smooth_tiles(2)
    ranges = calibrate(model, tiles, spec=SMOOTH_SPEC)
    mixed = emit(model, ranges, target="tensorrt", keep_float=kept, half=True)
    first = next(n for n in mixed.graph.node if n.name == "correlate")
    kinds = {entry.name: entry.i for entry in first.attribute}
    assert kinds["out_dtype"] == (0 if kept else TensorProto.INT8)
    expected = run(model, tiles[0])
    found = run(runnable_anywhere(mixed), tiles[0])
    # Where all channels are near 0, rounding turns their direction; elsewhere it does little.
    assert np.abs(found - expected).mean() < 0.01 * np.abs(expected).max()


def test_the_model_given_is_left_alone(unet):
    before = unet.SerializeToString(deterministic=True)
    onnx.checker.check_model(to_half(unet))
    assert unet.SerializeToString(deterministic=True) == before
