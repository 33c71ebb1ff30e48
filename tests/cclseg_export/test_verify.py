"""The comparison of libraries: that it finds the layer that is wrong, and only that one."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import onnx
import pytest
from native_libraries import FOLDER, native_library
from networks import brightest_band_spec, colour_patches, write_brightest_band, write_graph
from onnx import TensorProto, helper, numpy_helper

from cclseg.cli.app import run
from cclseg.errors import InputError, UntrustedModelError
from cclseg.signing import new_key
from cclseg.spec import ModelSpec
from cclseg_export.operator import attach_function
from cclseg_export.verify import segments
from cclseg_export.verify.compare import DEFINITION, compare
from cclseg_export.verify.figures import Tolerance, difference
from cclseg_export.verify.job import verify_model
from cclseg_export.verify.libraries import Variant, find_variants
from cclseg_export.verify.segments import Graph, Layer, names_taken

SPEC = brightest_band_spec()
RNG = np.random.default_rng(7)


def weight(name, *shape):
    return numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), name)


def write(path, nodes, *weights, domains=()):
    """Writes a network that begins with block means and ends with three logits."""
    first = helper.make_node(
        "AveragePool", ["images"], ["means"], kernel_shape=[4, 4], strides=[4, 4], name="pool"
    )
    return write_graph(
        path,
        [first, *nodes],
        inputs={"images": ["n", 3, 32, 32]},
        outputs={"logits": ["n", 3, 8, 8]},
        metadata=SPEC.to_metadata(),
        weights=weights,
        domains=domains,
    )


@pytest.fixture
def convolutions(tmp_path):
    """Three convolutions with activations between them."""
    nodes = [
        helper.make_node("Conv", ["means", "w1"], ["a"], name="one"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="two"),
        helper.make_node("Sigmoid", ["c"], ["d"], name="gate"),
        helper.make_node("Mul", ["b", "d"], ["e"], name="gated"),
        helper.make_node("Conv", ["e", "w3"], ["logits"], name="head"),
    ]
    weights = (weight("w1", 6, 3, 1, 1), weight("w2", 6, 6, 1, 1), weight("w3", 3, 6, 1, 1))
    return onnx.load(write(tmp_path / "convolutions.onnx", nodes, *weights))


@pytest.fixture
def quantised(tmp_path):
    """One convolution between Q and DQ, and a head in floating point."""
    scalars = {"s0": 1.0, "s1": 0.02, "sw": 0.01}
    nodes = [
        helper.make_node("QuantizeLinear", ["means", "s0", "z"], ["q0"], name="q0"),
        helper.make_node("DequantizeLinear", ["q0", "s0", "z"], ["d0"], name="d0"),
        helper.make_node("DequantizeLinear", ["w8", "sw", "zw"], ["w"], name="dw"),
        helper.make_node("Conv", ["d0", "w"], ["c"], name="conv"),
        helper.make_node("QuantizeLinear", ["c", "s1", "z1"], ["q1"], name="q1"),
        helper.make_node("DequantizeLinear", ["q1", "s1", "z1"], ["d1"], name="d1"),
        helper.make_node("Conv", ["d1", "head"], ["logits"], name="head"),
    ]
    return onnx.load(
        write(
            tmp_path / "quantised.onnx",
            nodes,
            *(numpy_helper.from_array(np.float32(v), n) for n, v in scalars.items()),
            numpy_helper.from_array(np.uint8(0), "z"),
            numpy_helper.from_array(np.uint8(10), "z1"),
            numpy_helper.from_array(np.int8(0), "zw"),
            numpy_helper.from_array(RNG.integers(0, 9, (4, 3, 1, 1)).astype(np.int8), "w8"),
            weight("head", 3, 4, 1, 1),
        )
    )


@pytest.fixture
def correlating(tmp_path):
    """A correlation of the means with themselves, and a head."""
    nodes = [
        helper.make_node("Relu", ["means"], ["a"], name="relu"),
        helper.make_node(
            "LocalCorrelation", ["a", "means"], ["c"], name="corr", domain="cclseg", radius=1
        ),
        helper.make_node("Conv", ["c", "head"], ["logits"], name="head"),
    ]
    path = write(tmp_path / "corr.onnx", nodes, weight("head", 3, 9, 1, 1), domains=("cclseg",))
    model = onnx.load(path)
    model.opset_import[0].version = 18
    return attach_function(model)


@pytest.fixture
def images():
    return [RNG.normal(scale=40, size=(1, 3, 32, 32)).astype(np.float32) for _ in range(2)]


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), colour_patches((48, 64)))
    return path


def variants(model):
    return find_variants(has_operator=any(node.domain for node in model.graph.node))[0]


def broken(change):
    """A library that gets something wrong: it computes ``change(model)`` instead of the model."""
    (reference, *_), _ = find_variants(has_operator=False)

    def load(model):
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        change(copy)
        return reference.load(copy)

    return Variant("broken", load)


def scaled_weight(name, factor):
    def change(model):
        for tensor in model.graph.initializer:
            if tensor.name == name:
                values = numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(numpy_helper.from_array(values, name))

    return change


class TestFloatingPoint:
    def test_libraries_agree(self, convolutions, images):
        found = compare(convolutions, images, variants(convolutions), tolerance=Tolerance())
        assert list(found.outcomes) == ["onnxruntime", "openvino"]
        for outcome in found.outcomes.values():
            assert outcome.agrees(Tolerance())
            assert outcome.layers == 7
            assert outcome.agreement_where_sure == 1
            assert outcome.worst.relative < 1e-5

    @pytest.mark.parametrize(("tensor", "node"), [("w1", "one"), ("w2", "two"), ("w3", "head")])
    def test_the_layer_that_is_wrong_is_named_and_no_other(
        self, convolutions, images, tensor, node
    ):
        reference = variants(convolutions)[0]
        wrong = broken(scaled_weight(tensor, 1.01))
        found = compare(convolutions, images, [reference, wrong], tolerance=Tolerance())["broken"]
        assert found.first.node == found.worst.node == node
        assert found.first.relative == pytest.approx(0.01, rel=1e-3)
        assert found.first.got == pytest.approx(1.01 * found.first.expected, rel=1e-3)
        assert not found.agrees(Tolerance())

    def test_of_two_wrong_layers_the_first_is_named(self, convolutions, images):
        def change(model):
            scaled_weight("w3", 1.5)(model)
            scaled_weight("w2", 1.01)(model)

        lineup = [variants(convolutions)[0], broken(change)]
        found = compare(convolutions, images, lineup, tolerance=Tolerance())["broken"]
        assert (found.first.node, found.worst.node) == ("two", "head")

    def test_cutting_into_pieces_changes_nothing(self, convolutions, images, monkeypatch):
        lineup = [variants(convolutions)[0], broken(scaled_weight("w2", 1.01))]
        whole = compare(convolutions, images, lineup, tolerance=Tolerance())["broken"]
        monkeypatch.setattr(segments, "_BYTES_IN_A_PIECE", 1)
        graph = Graph(convolutions, images[0].shape)
        assert len(list(graph.pieces(graph.layers()))) == 7
        pieces = compare(convolutions, images, lineup, tolerance=Tolerance())["broken"]
        assert pieces == whole

    def test_a_library_that_refuses_a_layer_is_a_finding(self, convolutions, images):
        def change(model):
            for node in model.graph.node:
                if node.name == "gate":
                    node.op_type = "NoSuchOperator"

        lineup = [variants(convolutions)[0], broken(change)]
        found = compare(convolutions, images, lineup, tolerance=Tolerance())["broken"]
        assert "NoSuchOperator" in found.problem
        assert not found.agrees(Tolerance())


class TestInt8:
    def test_libraries_agree_to_one_step(self, quantised, images):
        found = compare(quantised, images, variants(quantised), tolerance=Tolerance())
        for outcome in found.outcomes.values():
            assert outcome.agrees(Tolerance())

    def test_tensors_inside_of_quantised_layers_are_left_to_the_library(self, quantised):
        layers = Graph(quantised, (1, 3, 32, 32)).layers()
        assert [layer.tensor for layer in layers] == ["q0", "q1", "logits"]

    def test_differences_are_counted_in_steps(self, quantised, images):
        def change(model):
            for tensor in model.graph.initializer:
                if tensor.name == "z1":
                    tensor.CopyFrom(numpy_helper.from_array(np.uint8(13), "z1"))

        lineup = [variants(quantised)[0], broken(change)]
        found = compare(quantised, images, lineup, tolerance=Tolerance())["broken"]
        assert (found.first.node, found.first.steps, found.first.excess) == ("q1", 3, 3)
        found = compare(quantised, images, lineup, tolerance=Tolerance(steps=3))["broken"]
        assert found.first.node == "head"


class TestOperator:
    def test_libraries_agree_with_its_definition(self, correlating, images, monkeypatch):
        native_library("onnxruntime")
        monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(FOLDER))
        found = compare(correlating, images, variants(correlating), tolerance=Tolerance())
        assert {"onnxruntime, compiled operator", "openvino", DEFINITION} <= set(found.outcomes)
        for outcome in found.outcomes.values():
            assert outcome.agrees(Tolerance())
        assert found[DEFINITION].layers == 1

    def test_a_body_that_computes_something_else_is_found(self, correlating, images):
        (division,) = (node for node in correlating.functions[0].node if "products" in node.output)
        division.op_type = "Mul"
        found = compare(correlating, images, variants(correlating), tolerance=Tolerance())
        assert found[DEFINITION].first.node == "corr"
        assert not found.agrees(Tolerance())

    def test_a_file_for_a_plug_in_is_compared_by_its_body(self, tmp_path, photo):
        """Its nodes take integers and no function stands beside them, as TensorRT wants it."""
        window = {"radius": 1, "a_scale": 2.0, "b_scale": 2.0, "plugin_namespace": "cclseg"}
        nodes = [
            helper.make_node("QuantizeLinear", ["means", "s", "z"], ["q"], name="q"),
            helper.make_node(
                "LocalCorrelation", ["q", "q"], ["c"], name="corr", domain="cclseg", **window
            ),
            helper.make_node("Conv", ["c", "head"], ["logits"], name="head"),
        ]
        scale = numpy_helper.from_array(np.float32(2), "s")
        zero = numpy_helper.from_array(np.int8(0), "z")
        weights = (scale, zero, weight("head", 3, 9, 1, 1))
        path = write(tmp_path / "plugin.onnx", nodes, *weights, domains=("cclseg",))
        model = onnx.load(path)
        model.opset_import[0].version = 18
        onnx.save(model, path)
        found = verify_model(path, [photo], tolerance=Tolerance())
        assert found.agrees
        assert found.comparison[DEFINITION].layers == 1

    def test_what_is_not_compiled_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CCLSEG_NATIVE_DIR", str(tmp_path))
        _, absent = find_variants(has_operator=True)
        assert "cclseg ops build" in absent["onnxruntime, compiled operator"]


class TestDifference:
    LAYER = Layer(helper.make_node("Relu", ["a"], ["b"], name="relu"), "b", 3)

    def found(self, want, got, dtype=np.float32, **tolerance):
        arrays = np.array([want], dtype), np.array([got], dtype)
        return difference(self.LAYER, *arrays, image=0, tolerance=Tolerance(**tolerance))

    def test_it_says_where_and_how_much(self):
        found = self.found([1, -8, 2], [1, -8, 4], relative=0.1)
        assert (found.place, found.expected, found.got) == ((0, 2), 2, 4)
        assert (found.absolute, found.relative) == (2, 0.25)
        assert found.excess == pytest.approx(2.5)

    def test_the_same_nan_and_infinity_are_equal(self):
        same = [np.nan, np.inf, -np.inf, 1]
        assert self.found(same, same).absolute == 0

    @pytest.mark.parametrize("got", [np.nan, np.inf])
    def test_one_nan_or_infinity_is_the_worst_difference(self, got):
        found = self.found([1, 2], [1, got])
        assert found.place == (0, 1)
        assert found.excess == np.inf

    def test_half_precision_may_be_off_by_its_own_rounding(self):
        assert self.found([1.0], [1.004], np.float16).excess < 1
        assert self.found([1.0], [1.004], np.float32).excess > 1

    def test_zeros_are_equal(self):
        assert self.found([0, 0], [0, 0], relative=0).excess == 0
        assert self.found([0, 1], [0, 2], np.uint8, steps=0).excess == np.inf

    def test_unsigned_values_do_not_wrap(self):
        assert self.found([0, 255], [255, 0], np.uint8).steps == 255


def test_names_taken_by_inner_graphs_count():
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])
    inner = helper.make_node("Add", ["outside", "inside"], ["o"])
    made = helper.make_node("Relu", ["x"], ["inside"])
    branch = helper.make_graph([made, inner], "branch", [], [out])
    node = helper.make_node("If", ["c"], ["o"], then_branch=branch, else_branch=branch)
    assert names_taken(node) == {"c", "outside", "x"}


class TestVerb:
    def test_it_agrees_and_writes_json(self, network, photo, tmp_path, capsys):
        words = ["verify", str(network), str(photo), "--json", str(tmp_path / "a.json")]
        assert run(words) == 0
        assert capsys.readouterr().out.count("agrees") == 2
        content = json.loads((tmp_path / "a.json").read_text())
        assert content["agrees"] is True
        assert set(content["variants"]) == {"onnxruntime", "openvino"}
        assert content["variants"]["openvino"]["worst"]["node"] is not None

    def test_a_difference_is_exit_code_1_and_says_where(self, correlating, photo, tmp_path, capsys):
        (division,) = (node for node in correlating.functions[0].node if "products" in node.output)
        division.op_type = "Mul"
        onnx.save(correlating, tmp_path / "wrong.onnx")
        assert run(["verify", str(tmp_path / "wrong.onnx"), str(photo)]) == 1
        out = capsys.readouterr().out
        assert f"{DEFINITION} first differs in node 2 'corr' (LocalCorrelation)" in out
        assert "image photo.png: got" in out

    def test_figures_that_are_not_finite_are_none_in_json(self, tmp_path, photo, capsys):
        nodes = [
            helper.make_node("Neg", ["means"], ["a"], name="neg"),
            helper.make_node("Log", ["a"], ["logits"], name="log"),
        ]
        path = write(tmp_path / "log.onnx", nodes)
        assert run(["verify", str(path), str(photo), "--json", "-"]) == 0
        out = capsys.readouterr().out
        assert json.loads(out)["variants"]["openvino"]["logits_error"] is None
        assert "NaN" not in out

    @pytest.mark.slow
    def test_a_checkpoint_is_compared_with_torch(self, tmp_path, photo):
        from cclseg_trainer.checkpoint import Checkpoint
        from cclseg_trainer.config import TrainConfig
        from cclseg_trainer.models import VARIANTS, CCLNet

        shape = dataclasses.replace(VARIANTS["ccl-nano"], num_classes=3)
        spec = ModelSpec(name="ccl-nano", class_names=("a", "b", "c"), input_hw=(64, 64))
        checkpoint = Checkpoint(shape, TrainConfig(), spec, CCLNet(shape).state_dict(), 0, {})
        checkpoint.save(tmp_path / "best.pt")
        found = verify_model(tmp_path / "best.pt", [photo], tolerance=Tolerance())
        assert {"onnxruntime", "openvino", "torch"} <= set(found.comparison.outcomes)
        assert found.comparison["torch"].logits_error < 1e-3
        assert found.agrees

    def test_an_image_of_other_bands_is_named(self, photo, tmp_path):
        spec = brightest_band_spec(bands=("red", "green", "blue", "nir"))
        path = write_brightest_band(tmp_path / "four.onnx", spec)
        with pytest.raises(InputError, match=r"photo\.png has 3 bands of uint8; the model takes 4"):
            verify_model(path, [photo], tolerance=Tolerance())

    def test_a_model_of_another_kind_is_named(self, photo, tmp_path):
        (tmp_path / "net.xml").write_text("<net/>")
        with pytest.raises(InputError, match="verify the file that it was made from"):
            verify_model(tmp_path / "net.xml", [photo], tolerance=Tolerance())

    def test_a_model_that_the_device_does_not_trust_is_refused(
        self, network, photo, tmp_path, monkeypatch
    ):
        (tmp_path / "trusted").mkdir()
        shutil.copy(new_key(tmp_path / "keys")[1], tmp_path / "trusted")
        monkeypatch.setenv("CCLSEG_TRUSTED_KEYS", str(tmp_path / "trusted"))
        with pytest.raises(UntrustedModelError):
            verify_model(network, [photo], tolerance=Tolerance())

    @pytest.mark.slow
    def test_the_bundled_int8_model_agrees_in_every_library(self, real_data):
        (photo, *_) = sorted((real_data / "dubai" / "images").iterdir())
        found = verify_model("ccl-lite0", [photo], tolerance=Tolerance())
        assert found.agrees, found.to_dict()
        assert found.comparison["openvino"].worst.steps <= 1
