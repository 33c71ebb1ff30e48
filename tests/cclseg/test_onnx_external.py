"""Weights in other files: every tensor is looked at, and only plain files beside it are taken."""

import os

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import block_means, brightest_band_spec, write_graph
from onnx import TensorProto, helper, numpy_helper
from wire import field

from cclseg.backends.choose import load_backend
from cclseg.errors import BackendError
from cclseg.onnx_external import (
    ExternalData,
    check_external_data,
    find_external_data,
)
from cclseg.onnx_file import load_onnx, read_onnx
from cclseg.protobuf import DamagedError

BACKENDS = ("onnxruntime", "openvino")


def external(location, *, name="weight", shape=(3, 3, 1, 1), **more):
    """Returns a tensor that says its bytes are elsewhere."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def write_network(path, *weights):
    """Writes block means, then a 1 x 1 convolution by the first weight."""
    spec = brightest_band_spec()
    nodes = [
        helper.make_node("AveragePool", ["images"], ["m"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["m", weights[0].name], ["logits"]),
    ]
    return write_graph(
        path,
        nodes,
        inputs={"images": ["n", 3, 32, 32]},
        outputs={"logits": ["n", 3, 8, 8]},
        metadata=spec.to_metadata(),
        weights=weights,
    )


@pytest.fixture
def doubling(tmp_path):
    """A network that doubles the means; its weights stand in a file beside it."""
    weight = 2 * np.eye(3, dtype=np.float32)
    (tmp_path / "doubling.bin").write_bytes(bytes(8) + weight.tobytes())
    tensor = external("doubling.bin", offset="8", length=str(weight.nbytes))
    return write_network(tmp_path / "doubling.onnx", tensor)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_beside_the_model_are_taken(doubling, backend):
    images = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    with load_backend(backend).open(doubling) as opened:
        np.testing.assert_allclose(opened.infer(images), 2 * block_means(images), atol=1e-5)


def test_a_model_on_its_own_is_handed_over_as_the_bytes_that_were_checked(network, doubling):
    assert load_onnx(network)[1] == network.read_bytes()
    assert load_onnx(doubling)[1] == doubling
    assert read_onnx(doubling).external_data == (ExternalData("doubling.bin", 8, 36),)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../outside.bin",
        "sub/../../outside.bin",
        "..\\outside.bin",
        "C:\\weights.bin",
        "\\\\host\\share\\weights.bin",
        "",
        "a\0b",
    ],
)
def test_a_place_outside_the_folder_is_refused(tmp_path, backend, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(36))
    path = write_network(folder / "hostile.onnx", external(location))
    with pytest.raises(BackendError, match=r"expected the name of a file in its own folder"):
        load_backend(backend).open(path)


def test_the_mark_of_an_address_in_memory_is_no_file(tmp_path):
    path = write_network(tmp_path / "a.onnx", external("*/_ORT_MEM_ADDR_/*", offset="4096"))
    with pytest.raises(BackendError, match="No such file"):
        load_onnx(path)


def test_links_are_refused_wherever_they_lead(doubling, tmp_path):
    weights = tmp_path / "doubling.bin"
    weights.rename(tmp_path / "real.bin")
    weights.symlink_to("real.bin")
    with pytest.raises(BackendError, match=r"doubling.bin is a link; put the file itself"):
        load_onnx(doubling)


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w.bin").write_bytes(bytes(36))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").symlink_to(tmp_path / "elsewhere")
    path = write_network(tmp_path / "model" / "a.onnx", external("weights/w.bin"))
    with pytest.raises(BackendError, match="weights is a link"):
        load_onnx(path)


def test_the_model_itself_may_be_reached_by_a_link(doubling, tmp_path):
    latest = tmp_path / "latest.onnx"
    latest.symlink_to(doubling.name)
    assert load_onnx(latest)[1] == latest


def test_a_pipe_is_refused_and_not_waited_for(doubling, tmp_path):
    (tmp_path / "doubling.bin").unlink()
    os.mkfifo(tmp_path / "doubling.bin")
    with pytest.raises(BackendError, match="expected a plain file"):
        load_onnx(doubling)


@pytest.mark.parametrize(
    ("location", "message"),
    [("absent.bin", "No such file"), ("w" * 300, "File name too long"), (".", "plain file")],
)
def test_what_is_no_file_is_named(tmp_path, location, message):
    path = write_network(tmp_path / "a.onnx", external(location))
    with pytest.raises(BackendError, match=message):
        load_onnx(path)


def test_a_file_that_was_cut_off_is_named(doubling, tmp_path):
    (tmp_path / "doubling.bin").write_bytes(bytes(40))
    with pytest.raises(BackendError, match=r"doubling.bin up to byte 44, the file has 40"):
        load_onnx(doubling)


@pytest.mark.parametrize("count", ["-8", "1e3", "9" * 40, "٣"])
def test_an_offset_that_is_no_count_is_refused(tmp_path, count):
    path = write_network(tmp_path / "a.onnx", external("w.bin", offset=count))
    with pytest.raises(BackendError, match="external data with offset"):
        load_onnx(path)


def in_subgraph(tensor):
    """An If within an If: the tensor stands in the inner branch."""
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])
    inner = helper.make_graph([], "inner", [], [out], [tensor])
    node = helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
    outer = helper.make_graph([node], "outer", [], [out])
    node = helper.make_node("If", ["c"], ["o"], then_branch=outer, else_branch=outer)
    return helper.make_model(helper.make_graph([node], "main", [], [out]))


def in_attribute(tensor):
    node = helper.make_node("Constant", [], ["o"], value=tensor)
    return helper.make_model(helper.make_graph([node], "main", [], []))


def in_attribute_list(tensor):
    node = helper.make_node("Several", [], ["o"], values=[tensor], domain="x")
    return helper.make_model(helper.make_graph([node], "main", [], []))


def in_function(tensor):
    node = helper.make_node("Constant", [], ["o"], value=tensor)
    opset = helper.make_opsetid("", 17)
    function = helper.make_function("x", "F", [], ["o"], [node], [opset])
    return helper.make_model(helper.make_graph([], "main", [], []), functions=[function])


def in_function_default(tensor):
    model = in_function(numpy_helper.from_array(np.ones(1)))
    model.functions[0].attribute_proto.append(helper.make_attribute("value", tensor))
    return model


def in_sparse_weight(tensor):
    graph = helper.make_graph([], "main", [], [])
    graph.sparse_initializer.add().values.CopyFrom(tensor)
    graph.sparse_initializer[0].indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64)))
    return helper.make_model(graph)


def in_training(tensor):
    model = helper.make_model(helper.make_graph([], "main", [], []))
    model.training_info.add().initialization.initializer.append(tensor)
    return model


def in_weight_that_denies_it(tensor):
    tensor.data_location = TensorProto.DEFAULT
    return helper.make_model(helper.make_graph([], "main", [], [], [tensor]))


PLACES = (
    in_subgraph, in_attribute, in_attribute_list, in_function, in_function_default,
    in_sparse_weight, in_training, in_weight_that_denies_it,
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_it_is_found_wherever_it_hides(place):
    data = place(external("hidden.bin")).SerializeToString()
    assert find_external_data(data) == (ExternalData("hidden.bin"),)


def test_a_second_graph_hides_nothing():
    """Protobuf merges a message that stands twice, so libraries see the weights of both."""
    halves = [
        helper.make_model(helper.make_graph([], "g", [], [], [external(f"{name}.bin", name=name)]))
        for name in "ab"
    ]
    data = b"".join(half.SerializeToString() for half in halves)
    assert len(onnx.ModelProto.FromString(data).graph.initializer) == 2
    assert [part.location for part in find_external_data(data)] == ["a.bin", "b.bin"]


def test_graphs_within_graphs_without_end_are_refused():
    content = b""
    for _ in range(2000):
        for number in (6, 5, 1):  # an attribute's graph, a node's attribute, a graph's node
            content = field(number, content)
    with pytest.raises(DamagedError, match="graphs within graphs"):
        find_external_data(field(7, content))


@given(st.text(max_size=40))
def test_whatever_is_let_through_lies_in_the_folder(tmp_path_factory, location):
    folder = tmp_path_factory.getbasetemp() / "within"
    folder.mkdir(exist_ok=True)
    (folder / "w.bin").write_bytes(bytes(36))
    try:
        files = check_external_data(folder / "a.onnx", (ExternalData(location),))
    except BackendError:
        return
    assert [file.resolve().parent for file in files] == [folder.resolve()]
