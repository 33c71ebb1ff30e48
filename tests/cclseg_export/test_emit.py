"""INT8 for every target: what is in the file, and that it computes what the network does."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import tensorrt_plugin
from native_libraries import native_plugin
from onnx import TensorProto, helper, numpy_helper
from unet import SMOOTH_SPEC, smooth_tiles, write_unet

from cclseg.errors import InputError
from cclseg_export.bias import correct_bias
from cclseg_export.calibrate import Ranges, calibrate
from cclseg_export.emit import emit
from cclseg_export.emulate import runnable_anywhere
from cclseg_export.foreign import load_foreign
from cclseg_export.operator import attach_function, correlation_nodes
from cclseg_export.plan import quantizable_nodes
from cclseg_export.targets import TARGETS

SIGNED = ("tensorrt", "tensorrt-rtx")


@pytest.fixture(scope="module")
def tiles():
    return smooth_tiles(8)


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    return load_foreign(write_unet(tmp_path_factory.mktemp("unet") / "unet.onnx"), SMOOTH_SPEC)[0]


@pytest.fixture(scope="module")
def unet_ranges(unet, tiles):
    return calibrate(unet, tiles, spec=SMOOTH_SPEC)


@pytest.fixture(scope="module")
def gated():
    """Two projections of an image, their correlation, and a convolution of it added to one."""
    rng = np.random.default_rng(0)
    weights = {
        "a.w": rng.normal(0, 0.3, (8, 3, 3, 3)), "a.b": rng.normal(0, 0.1, 8),
        "b.w": rng.normal(0, 0.3, (8, 3, 3, 3)), "b.b": rng.normal(0, 0.1, 8),
        "gate.w": rng.normal(0, 0.3, (8, 18, 1, 1)), "gate.b": rng.normal(0, 0.1, 8),
        "head.w": rng.normal(0, 0.3, (3, 8, 1, 1)), "head.b": np.zeros(3),
    }  # fmt: skip
    six = [numpy_helper.from_array(np.float32(v), n) for n, v in (("zero", 0), ("six", 6))]
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["images", "a.w", "a.b"], ["a"], "a", **conv),
        helper.make_node("Clip", ["a", "zero", "six"], ["a6"], "a6"),
        helper.make_node("Conv", ["images", "b.w", "b.b"], ["b"], "b", **conv),
        helper.make_node(
            "LocalCorrelation", ["a6", "b"], ["r"], "r", domain="cclseg", radius=1, groups=2,
            normalize=1,
        ),
        helper.make_node("Conv", ["r", "gate.w", "gate.b"], ["g"], "gate", kernel_shape=[1, 1]),
        helper.make_node("Add", ["g", "b"], ["s"], "sum"),
        helper.make_node("Conv", ["s", "head.w", "head.b"], ["logits"], "head",
                         kernel_shape=[1, 1]),
    ]  # fmt: skip
    stored = [numpy_helper.from_array(np.float32(v), n) for n, v in weights.items()]
    graph = helper.make_graph(
        nodes,
        "gated",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ("n", 3, "h", "w"))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("n", 3, "h", "w"))],
        stored + six,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("cclseg", 1)]
    return attach_function(helper.make_model(graph, opset_imports=opsets, ir_version=8))


@pytest.fixture(scope="module")
def gated_ranges(gated, tiles):
    return calibrate(gated, tiles, spec=SMOOTH_SPEC)


def run_onnxruntime(model, images):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def run_openvino(model, images):
    network = openvino.Core().read_model(model.SerializeToString())
    network.reshape({network.input(0): list(images.shape)})
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(network, "CPU", precise)
    return compiled({0: images})[0].copy()


def snr_db(run, model, quantized, tiles):
    """Signal to noise of the logits over all tiles."""
    signal = noise = 0.0
    for tile in tiles:
        expected = run_onnxruntime(model, tile)
        signal += np.square(expected).sum()
        noise += np.square(run(quantized, tile) - expected).sum()
    return 10 * np.log10(signal / noise)


def node(model, name):
    return next(n for n in model.graph.node if n.name == name)


def maker(model, tensor):
    return next(n for n in model.graph.node if tensor in n.output)


def stored(model, name):
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))


# Random networks of few channels reach 25 to 31 dB; a wrong step, zero point or bias, below 10.
ENOUGH_DB = 22


@pytest.mark.parametrize("target", TARGETS)
def test_a_unet_computes_what_it_did_in_onnx_runtime(unet, unet_ranges, tiles, target):
    quantized = emit(unet, unet_ranges, target=target)
    assert snr_db(run_onnxruntime, unet, quantized, tiles) > ENOUGH_DB


@pytest.mark.parametrize("target", ["cpu", "openvino"])
def test_a_unet_computes_what_it_did_in_openvino(unet, unet_ranges, tiles, target):
    quantized = emit(unet, unet_ranges, target=target)
    assert snr_db(run_openvino, unet, quantized, tiles) > ENOUGH_DB


@pytest.mark.parametrize("target", TARGETS)
def test_a_network_with_the_operator_computes_what_it_did(gated, gated_ranges, tiles, target):
    quantized = runnable_anywhere(emit(gated, gated_ranges, target=target))
    assert snr_db(run_onnxruntime, gated, quantized, tiles) > ENOUGH_DB


def test_the_openvino_file_needs_no_extension(gated, gated_ranges, tiles):
    quantized = emit(gated, gated_ranges, target="openvino")
    assert snr_db(run_openvino, gated, quantized, tiles) > ENOUGH_DB


@pytest.mark.parametrize("target", TARGETS)
def test_types_and_zero_points_are_those_of_the_target(unet, unet_ranges, target):
    quantized = emit(unet, unet_ranges, target=target)
    points = {
        (stored(quantized, n.input[2]).dtype.name, int(stored(quantized, n.input[2])))
        for n in quantized.graph.node
        if n.op_type == "QuantizeLinear"
    }
    if target in SIGNED:
        assert points == {("int8", 0)}
    else:  # 127: that of the images, whose range is not symmetric
        assert points <= {("uint8", 0), ("uint8", 127), ("uint8", 128)}
    types = {stored(quantized, t.name).dtype.name for t in quantized.graph.initializer}
    assert ("int32" in types) == (target not in SIGNED)  # biases


def test_on_cpus_every_convolution_takes_and_gives_integers(unet, unet_ranges, tmp_path):
    quantized = emit(unet, unet_ranges, target="cpu")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(
        quantized.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    kinds = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    convolutions = sum(n.op_type == "Conv" for n in unet.graph.node)
    assert kinds.count("QLinearConv") == convolutions
    assert not {"Conv", "Relu", "Add", "Concat"} & set(kinds)


def test_images_lose_nothing(unet, unet_ranges):
    """Means of 127 and deviations of 128 give each of the 256 pixel values an integer."""
    quantized = emit(unet, unet_ranges, target="cpu")
    step, zero = stored(quantized, "picture_step"), stored(quantized, "picture_zero")
    pixels = (np.arange(256) - 127) / 128
    integers = np.clip(np.rint(pixels / step) + zero, 0, 255)
    np.testing.assert_allclose((integers - zero) * step, pixels, atol=1e-6)


def test_one_calibration_gives_the_same_steps_to_all_targets(gated, gated_ranges):
    unsigned = emit(gated, gated_ranges, target="cpu")
    signed = emit(gated, gated_ranges, target="tensorrt")
    assert stored(unsigned, "b_step") == stored(signed, "b_step")  # of both signs
    assert stored(unsigned, "b_zero") == 128
    # Never negative: unsigned integers have twice the resolution.
    np.testing.assert_allclose(stored(unsigned, "a6_step") * 255, stored(signed, "a6_step") * 127)


def test_for_a_plugin_the_correlation_takes_and_gives_integers(gated, gated_ranges):
    quantized = emit(gated, gated_ranges, target="tensorrt")
    (correlation,) = correlation_nodes(quantized)
    assert list(correlation.input) == ["a6_q", "b_q"]
    values = {a.name: helper.get_attribute_value(a) for a in correlation.attribute}
    assert values["a_scale"] == pytest.approx(float(stored(quantized, "a6_step")))
    assert values["b_scale"] == pytest.approx(float(stored(quantized, "b_step")))
    assert values["out_scale"] == pytest.approx(float(stored(quantized, "r_step")))
    assert values["out_dtype"] == TensorProto.INT8
    assert maker(quantized, "r_dq").input[0] == correlation.output[0]
    assert values["plugin_namespace"] == b"cclseg"
    assert not quantized.functions


@pytest.mark.parametrize(
    ("target", "plugin_types"), [("tensorrt", ["INT8"] * 3), ("tensorrt-rtx", [])]
)
def test_tensorrt_builds_an_engine_of_integers(gated, gated_ranges, tmp_path, target, plugin_types):
    for module in ("tensorrt_rtx_bindings", "tensorrt_rtx_libs"):
        if not tensorrt_plugin.is_installed(module):
            pytest.skip(f"{module} is not installed (group test-trt)")
    path = tmp_path / "model.onnx"
    onnx.save(emit(gated, gated_ranges, target=target), path)
    report = tensorrt_plugin.build_rtx_engine(native_plugin(), path, tmp_path)
    assert report["plugin_types"] == plugin_types
    assert report["layers"].count("QUANTIZE") >= 4
    assert report["output_type"] == "FLOAT"


def test_a_correlation_kept_in_floating_point_takes_what_the_pairs_left(gated, gated_ranges):
    quantized = emit(gated, gated_ranges, target="tensorrt", keep_float=["r"])
    (correlation,) = correlation_nodes(quantized)
    assert list(correlation.input) == ["a6", "b_dq"]  # the sum takes b as integers, too
    values = {a.name: onnx.helper.get_attribute_value(a) for a in correlation.attribute}
    assert (values["a_scale"], values["out_dtype"]) == (1, 0)  # the plugin's defaults


def test_rtx_reads_standard_operators_unless_the_plugin_is_asked_for(gated, gated_ranges):
    plain = emit(gated, gated_ranges, target="tensorrt-rtx")
    assert {n.domain for n in plain.graph.node} <= {"", "ai.onnx"}
    assert not plain.functions
    asked = emit(gated, gated_ranges, target="tensorrt-rtx", plugin=True)
    assert asked == emit(gated, gated_ranges, target="tensorrt")
    with pytest.raises(InputError, match="no plug-ins"):
        emit(gated, gated_ranges, target="cpu", plugin=True)


def test_for_tensorrt_a_convolution_reaches_the_sum_behind_it_without_a_pair(gated, gated_ranges):
    quantized = emit(gated, gated_ranges, target="tensorrt")
    assert list(node(quantized, "sum").input) == ["g", "b_dq"]


def test_kept_nodes_stay_as_they_are(gated, gated_ranges, tiles):
    names = quantizable_nodes(gated)
    assert names == ("a", "b", "gate", "sum", "head")
    everything = emit(gated, gated_ranges, target="cpu", keep_float=names)
    assert not {n.op_type for n in everything.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    one = emit(gated, gated_ranges, target="cpu", keep_float=["gate"])
    assert list(node(one, "gate").input)[1:] == ["gate.w", "gate.b"]
    before = snr_db(run_onnxruntime, gated, emit(gated, gated_ranges, target="cpu"), tiles)
    assert snr_db(run_onnxruntime, gated, one, tiles) > before


def test_an_activation_behind_a_kept_layer_is_not_lost(gated, gated_ranges, tiles):
    """Quantisers that fold activations into ranges lose them where no range is written."""
    kept = emit(gated, gated_ranges, target="cpu", keep_float=["a", "b", "sum", "gate"])
    assert snr_db(run_onnxruntime, gated, kept, tiles) > ENOUGH_DB


def test_the_logits_keep_their_name(unet, unet_ranges):
    for target in TARGETS:
        quantized = emit(unet, unet_ranges, target=target)
        assert [o.name for o in quantized.graph.output] == ["scores"]
        maker(quantized, "scores")


def test_a_tiny_channel_with_a_large_bias_does_not_overflow(gated, tiles):
    model = onnx.ModelProto.FromString(gated.SerializeToString())
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == "head.w":
            values[1] = 1e-9
        elif tensor.name == "head.b":
            values[1] = 3
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    ranges = calibrate(model, tiles, spec=SMOOTH_SPEC)
    found = run_onnxruntime(emit(model, ranges, target="cpu"), tiles[0])
    np.testing.assert_allclose(found[:, 1], 3, atol=2 * ranges.magnitudes["logits"] / 127)


def test_bias_correction_gives_each_class_back_its_share_of_pixels(unet, unet_ranges, tiles):
    """A network that favours one class by more than rounding does is brought back."""
    head = unet.graph.node[-1].input[2]

    def bias(model):
        return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == head))

    leaning = onnx.ModelProto.FromString(unet.SerializeToString())
    stored = next(t for t in leaning.graph.initializer if t.name == head)
    moved = np.array([0.2, 0, 0], np.float32)
    stored.CopyFrom(numpy_helper.from_array(bias(unet) + moved, head))
    corrected = correct_bias(unet, emit(leaning, unet_ranges, target="cpu"), tiles)
    # A step of the logits is 0.03.
    np.testing.assert_allclose(bias(corrected) - bias(unet), moved.mean() - moved, atol=0.03)


def test_without_a_last_convolution_the_bias_stays_and_this_is_said(gated, tiles, caplog):
    model = onnx.ModelProto.FromString(gated.SerializeToString())
    model.graph.node[-1].output[0] = "scores"
    last = helper.make_node("HardSwish", ["scores"], ["logits"], "last")
    model.graph.node.append(last)
    quantized = emit(model, calibrate(model, tiles, spec=SMOOTH_SPEC), target="cpu")
    assert correct_bias(model, quantized, tiles) == model
    assert "bias is not corrected" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "tensort"}, "did you mean 'tensorrt'"),
        ({"target": "cpu", "keep_float": ["gait"]}, "did you mean 'gate'"),
    ],
)
def test_unknown_names_are_refused(gated, gated_ranges, options, message):
    with pytest.raises(InputError, match=message):
        emit(gated, gated_ranges, **options)


def test_ranges_of_another_model_are_refused(gated, unet_ranges):
    with pytest.raises(InputError, match="measured on another model"):
        emit(gated, unet_ranges, target="cpu")


def test_a_graph_whose_nodes_have_no_names_is_refused(gated, gated_ranges):
    model = onnx.ModelProto.FromString(gated.SerializeToString())
    model.graph.node[0].name = ""
    with pytest.raises(InputError, match="a name of its own"):
        emit(model, gated_ranges, target="cpu")


def test_operators_newer_than_the_target_are_refused(unet, unet_ranges):
    model = onnx.ModelProto.FromString(unet.SerializeToString())
    model.opset_import[0].version = 21
    emit(model, unet_ranges, target="cpu")
    with pytest.raises(InputError, match="'tensorrt' reads up to 20"):
        emit(model, unet_ranges, target="tensorrt")


def test_ranges_survive_json(gated_ranges):
    assert Ranges.from_json(gated_ranges.to_json()) == gated_ranges
    for text in ("", "[]", "{}", '{"input_limits": [1]}'):
        with pytest.raises(InputError, match="no record of ranges"):
            Ranges.from_json(text)
