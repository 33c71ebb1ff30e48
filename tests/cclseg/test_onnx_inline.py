"""The inliner of the runtime against that of the onnx package, and what it refuses."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
import pytest
from correlation_contract import normal_maps
from onnx import TensorProto, helper

from cclseg.correlation import local_correlation
from cclseg.onnx_inline import inline_function
from cclseg.protobuf import DamagedError
from cclseg_export.operator import attach_function, correlation_nodes, make_model


def inlined(model):
    content = inline_function(model.SerializeToString(), "cclseg", "LocalCorrelation")
    assert content is not None
    return onnx.ModelProto.FromString(content)


def run(model, a, b):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"a": a, "b": b})[0]


@pytest.fixture
def chain():
    """Two correlations of different windows, with a weight and metadata beside them."""
    nodes = [
        helper.make_node("Mul", ["a", "weight"], ["scaled"]),
        helper.make_node("LocalCorrelation", ["scaled", "b"], ["middle"], domain="cclseg",
                         radius=1, groups=2, normalize=1),
        helper.make_node("LocalCorrelation", ["middle", "middle"], ["out"], domain="cclseg",
                         radius=2, dilation=2),
    ]  # fmt: skip
    maps = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 4, 7, 9)) for n in "ab"]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 25, 7, 9))
    weight = onnx.numpy_helper.from_array(np.float32([2]), "weight")
    graph = helper.make_graph(nodes, "chain", maps, [out], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"names": "some"})
    return attach_function(model)


def test_the_body_takes_the_place_of_each_node(chain):
    model = inlined(chain)
    onnx.checker.check_model(model)
    assert not correlation_nodes(model)
    assert not model.functions
    a, b = normal_maps((1, 4, 7, 9))
    middle = local_correlation(2 * a, b, radius=1, groups=2, normalize=True)
    expected = local_correlation(middle, middle, radius=2, dilation=2)
    np.testing.assert_allclose(run(model, a, b), expected, rtol=2e-5, atol=8e-6)


def test_the_onnx_package_puts_the_same_operators_in_the_same_order(chain):
    def kinds(model):
        return [node.op_type for node in model.graph.node]

    assert kinds(inlined(chain)) == kinds(onnx.inliner.inline_local_functions(chain))


def test_everything_else_stays_as_it_was(chain):
    model = inlined(chain)
    for kept in ("graph.input", "graph.output", "graph.initializer", "metadata_props"):
        before, after = chain, model
        for name in kept.split("."):
            before, after = getattr(before, name), getattr(after, name)
        assert list(before) == list(after)
    assert model.graph.node[0] == chain.graph.node[0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_attributes_reach_the_body(dtype):
    model = make_model((1, 4, 5, 6), radius=1, normalize=True, dtype=dtype, scales=(0.5, 0.25))
    a, b = (np.round(maps * 10).astype(dtype) for maps in normal_maps((1, 4, 5, 6)))
    np.testing.assert_array_equal(run(inlined(model), a, b), run(model, a, b))


def test_an_attribute_that_nothing_gives_is_left_out():
    body = helper.make_node("Concat", ["x", "y"], ["z"], name="last")
    body.attribute.add(name="axis", ref_attr_name="side", type=onnx.AttributeProto.INT)
    function = helper.make_function(
        "cclseg", "LocalCorrelation", ["x", "y"], ["z"], [body],
        [helper.make_opsetid("", 18)], attributes=["side"],
    )  # fmt: skip
    model = make_model((1, 4, 5, 6), radius=1)
    model.functions[0].CopyFrom(function)
    (node,) = inlined(model).graph.node
    assert (list(node.input), list(node.output), list(node.attribute)) == (["a", "b"], ["out"], [])


def test_a_model_without_the_function_is_none():
    model = make_model((1, 4, 5, 6), radius=1)
    assert inline_function(model.SerializeToString(), "cclseg", "Another") is None
    assert inline_function(model.SerializeToString(), "other", "LocalCorrelation") is None


def test_a_body_of_another_operator_set_is_refused(chain):
    chain.opset_import[0].version = 19
    with pytest.raises(DamagedError, match="operator set 18, the model of 19"):
        inlined(chain)


def test_a_body_with_a_graph_of_its_own_is_refused(chain):
    branch = helper.make_graph([], "branch", [], [])
    chain.functions[0].node[0].attribute.append(helper.make_attribute("then_branch", branch))
    with pytest.raises(DamagedError, match="graph of its own"):
        inlined(chain)


def test_bodies_without_end_are_refused(chain):
    chain.functions[0].doc_string = "x" * (1 << 25)
    with pytest.raises(DamagedError, match="bodies of 2 nodes"):
        inlined(chain)


def test_a_cut_file_is_refused_or_another_model(chain):
    content = chain.SerializeToString()
    refused = 0
    for stop in range(0, len(content), 7):
        try:
            inline_function(content[:stop], "cclseg", "LocalCorrelation")
        except DamagedError:
            refused += 1
    assert refused > len(content) / 7 / 2
