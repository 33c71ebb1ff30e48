"""The correlation in ONNX: body and kernels in both libraries, and what the file holds."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from correlation_contract import CorrelationContract, Int8CorrelationContract, normal_maps
from native_libraries import native_library
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    RuntimeException,
)

from cclseg.correlation import local_correlation
from cclseg.errors import InputError
from cclseg_export.operator import (
    attach_function,
    correlation_nodes,
    decomposition,
    inline_function,
    make_model,
    name_plugin,
    remove_function,
    translation_table,
)
from cclseg_trainer.ops import local_correlation as local_correlation_in_torch

REFUSALS = (ValueError, RuntimeError, InvalidArgument, RuntimeException, Fail)


def run_onnxruntime(model, a, b, library=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    if library is not None:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"a": a, "b": b})[0]


def run_openvino(model, a, b, library=None):
    core = openvino.Core()
    if library is not None:
        core.add_extension(str(library))
    network = core.read_model(model.SerializeToString())
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled({"a": np.ascontiguousarray(a), "b": np.ascontiguousarray(b)})[0].copy()


class TestBodyInOnnxRuntime(CorrelationContract):
    refusals = REFUSALS

    def run(self, a, b, **options):
        return run_onnxruntime(make_model(a.shape, **options), a, b)


class TestHalfBodyInOnnxRuntime(CorrelationContract):
    """Sums in float32, so only the result is rounded: by 2^-11 of its size."""

    dtype = np.float16
    rtol, atol = 1e-3, 1e-6
    refusals = REFUSALS

    def run(self, a, b, **options):
        return run_onnxruntime(make_model(a.shape, dtype="float16", **options), a, b)


class TestInt8BodyInOnnxRuntime(Int8CorrelationContract):
    """Here the products are float32, as for float32 maps."""

    rtol, atol = 1e-5, 4e-6

    def run(self, a, b, *, scales, **options):
        model = make_model(a.shape, dtype="int8", scales=scales, **options)
        return run_onnxruntime(model, a, b)


class TestKernelInOnnxRuntime(CorrelationContract):
    refusals = REFUSALS

    def run(self, a, b, **options):
        model = remove_function(make_model(a.shape, **options))
        return run_onnxruntime(model, a, b, native_library("onnxruntime"))


class TestInt8KernelInOnnxRuntime(Int8CorrelationContract):
    def run(self, a, b, *, scales, **options):
        model = remove_function(make_model(a.shape, dtype="int8", scales=scales, **options))
        return run_onnxruntime(model, a, b, native_library("onnxruntime"))


class TestBodyInOpenVino(CorrelationContract):
    refusals = REFUSALS

    def run(self, a, b, **options):
        return run_openvino(inline_function(make_model(a.shape, **options)), a, b)


class TestKernelInOpenVino(CorrelationContract):
    refusals = REFUSALS

    def run(self, a, b, **options):
        model = remove_function(make_model(a.shape, **options))
        return run_openvino(model, a, b, native_library("openvino"))


class TestInt8KernelInOpenVino(Int8CorrelationContract):
    def run(self, a, b, *, scales, **options):
        model = remove_function(make_model(a.shape, dtype="int8", scales=scales, **options))
        return run_openvino(model, a, b, native_library("openvino"))


def test_a_kernel_wins_over_the_body():
    """A body that gives nothing but zeros shows which of the two was taken."""
    model = make_model((1, 4, 5, 6), radius=1)
    body = model.functions[0]
    last = body.node[-1]
    zeroed = helper.make_node("Sub", [last.input[0], last.input[0]], ["nothing"])
    last.input[0] = "nothing"
    body.node.insert(len(body.node) - 1, zeroed)
    a, b = normal_maps((1, 4, 5, 6))
    assert not run_onnxruntime(model, a, b).any()
    found = run_onnxruntime(model, a, b, native_library("onnxruntime"))
    np.testing.assert_allclose(found, local_correlation(a, b, radius=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("run", "host"), [(run_onnxruntime, "onnxruntime"), (run_openvino, "openvino")]
)
@pytest.mark.parametrize(("name", "value"), [("radius", -1), ("dilation", 0), ("groups", 3)])
def test_a_kernel_refuses_a_node_that_does_not_fit(run, host, name, value):
    model = remove_function(make_model((1, 4, 5, 6), radius=1))
    for attribute in model.graph.node[0].attribute:
        if attribute.name == name:
            attribute.i = value
    a, b = normal_maps((1, 4, 5, 6))
    with pytest.raises(REFUSALS, match=r"expected|divide"):
        run(model, a, b, native_library(host))


@pytest.mark.parametrize("library", [False, True])
def test_free_sizes(library):
    model = make_model(("n", 6, "h", "w"), radius=2, groups=2, normalize=True)
    for size in ((1, 6, 5, 6), (3, 6, 17, 33)):
        a, b = normal_maps(size)
        found = run_onnxruntime(model, a, b, native_library("onnxruntime") if library else None)
        expected = local_correlation(a, b, radius=2, groups=2, normalize=True)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=4e-6)


def chain_of(first, second):
    """Two correlations in one graph: of a and b, then of that with itself."""
    nodes = [
        helper.make_node("LocalCorrelation", ["a", "b"], ["middle"], domain="cclseg", **first),
        helper.make_node("LocalCorrelation", ["middle", "middle"], ["out"], domain="cclseg",
                         **second),
    ]  # fmt: skip
    maps = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 4, 7, 9)) for n in "ab"]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, "k", 7, 9))
    return helper.make_model(
        helper.make_graph(nodes, "chain", maps, [out]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )


@pytest.mark.parametrize("normalize", [(False, False), (True, True), (True, False)])
def test_one_body_serves_nodes_of_different_windows(normalize):
    first = {"radius": 1, "dilation": 2, "normalize": int(normalize[0])}
    second = {"radius": 3, "groups": 3, "normalize": int(normalize[1])}
    model = attach_function(chain_of(first, second))
    assert len(model.functions) == 1
    a, b = normal_maps((1, 4, 7, 9))
    middle = local_correlation(a, b, radius=1, dilation=2, normalize=normalize[0])
    expected = local_correlation(middle, middle, radius=3, groups=3, normalize=normalize[1])
    found = run_onnxruntime(model, a, b)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=8e-6)


@pytest.mark.parametrize(
    ("channels", "radius", "has_products"),
    [(8, 1, False), (8, 2, False), (64, 1, True), (8, 4, True), ("c", 1, True)],
)
def test_the_body_of_few_lags_and_channels_shifts_and_others_multiply_matrices(
    channels, radius, has_products
):
    """What is faster was measured; both forms are checked by the contract."""
    body = make_model((1, channels, 16, 16), radius=radius).functions[0]
    assert ("MatMul" in {node.op_type for node in body.node}) == has_products


def test_attaching_twice_leaves_one_body():
    model = make_model((1, 4, 5, 6), radius=1)
    assert attach_function(model).functions == make_model((1, 4, 5, 6), radius=1).functions


def test_a_model_of_an_old_operator_set_is_refused():
    model = make_model((1, 4, 5, 6), radius=1)
    model.opset_import[0].version = 13
    with pytest.raises(InputError, match="export it with 18"):
        attach_function(model)


def test_a_model_without_correlations_is_left_alone():
    model = inline_function(make_model((1, 4, 5, 6), radius=1))
    assert not correlation_nodes(model)
    before = model.SerializeToString()
    assert attach_function(model).SerializeToString() == before


def test_for_a_plugin_the_node_names_it_and_no_body_hides_it():
    model = name_plugin(make_model((1, 4, 5, 6), radius=1))
    (node,) = correlation_nodes(model)
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    assert attributes["plugin_namespace"] == b"cclseg"
    assert attributes["plugin_version"] == b"1"
    assert not model.functions
    onnx.checker.check_model(model)
    assert name_plugin(model).graph.node[0] == node  # twice is once


class TwoCorrelations(torch.nn.Module):
    def forward(self, a, b):
        near = local_correlation_in_torch(a, b, radius=1, groups=2, normalize=True)
        return near, local_correlation_in_torch(near, near, radius=2, normalize=True)


@pytest.mark.parametrize("keep_operator", [False, True])
def test_an_exported_network_holds_one_node_per_correlation_or_none(keep_operator):
    maps = normal_maps((2, 4, 7, 9))
    example = tuple(map(torch.from_numpy, maps))
    with warnings.catch_warnings():
        # torch 2.13 uses a class of its own that it deprecates.
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
        traced = torch.export.export(TwoCorrelations(), example)
        if not keep_operator:
            traced = traced.run_decompositions(decomposition())
        program = torch.onnx.export(
            traced, dynamo=True, custom_translation_table=translation_table(), verbose=False
        )
    model = attach_function(program.model_proto)
    assert len(correlation_nodes(model)) == (2 if keep_operator else 0)
    assert len(model.functions) == (1 if keep_operator else 0)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [entry.name for entry in session.get_inputs()]
    found = session.run(None, dict(zip(names, maps, strict=True)))
    for exported, original in zip(found, TwoCorrelations()(*example), strict=True):
        np.testing.assert_allclose(exported, original.numpy(), rtol=2e-5, atol=8e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": -1}, "0 or more"),
        ({"radius": 1, "groups": 3}, "divides"),
        ({"radius": 1, "dtype": "float64"}, "float64"),
    ],
)
def test_misfits_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_model((1, 4, 5, 6), **options)
