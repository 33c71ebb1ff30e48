"""What layers in floating point cost in time: dense ones most, depthwise ones for their maps."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import write_graph
from onnx import helper, numpy_helper

from cclseg_export.slowdown import slowdowns

CHANNELS, SIDE = 64, 16
MAP = CHANNELS * SIDE * SIDE
NODES = ("depthwise", "dense", "sum", "up")


@pytest.fixture(params=[(SIDE, SIDE), ("h", "w")], ids=["fixed size", "free size"])
def network(tmp_path, request):
    """A depthwise, a dense and an upsampling layer, and a sum, all of as many channels."""
    shapes = {
        "depthwise": (CHANNELS, 1, 3, 3),
        "dense": (CHANNELS, CHANNELS, 1, 1),
        "up": (CHANNELS, CHANNELS, 2, 2),
    }
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), f"{name}.weight")
        for name, shape in shapes.items()
    ]
    grouped = {"group": CHANNELS, "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["images", "depthwise.weight"], ["a"], "depthwise", **grouped),
        helper.make_node("Conv", ["a", "dense.weight"], ["b"], "dense"),
        helper.make_node("Add", ["a", "b"], ["c"], "sum"),
        helper.make_node("ConvTranspose", ["c", "up.weight"], ["logits"], "up", strides=[2, 2]),
    ]
    path = write_graph(
        tmp_path / "network.onnx",
        nodes,
        inputs={"images": [1, CHANNELS, *request.param]},
        outputs={"logits": [1, CHANNELS, "rows", "columns"]},
        weights=weights,
    )
    return onnx.load(path)


def _found(model):
    return slowdowns(model, NODES, np.zeros((1, CHANNELS, SIDE, SIDE), np.float32))


def test_dense_layers_lose_their_multiplications_and_all_layers_their_conversions(network):
    expected = {
        "depthwise": 15 * 2 * MAP,  # its kernels of 9 numbers gain nothing from 8 bits
        "dense": CHANNELS * MAP + 15 * 2 * MAP,
        "sum": 15 * 3 * MAP,
        "up": CHANNELS * 4 * MAP + 15 * 5 * MAP,
    }
    assert _found(network) == pytest.approx({n: value / 1e6 for n, value in expected.items()})


def test_the_model_is_left_as_it_was(network):
    before = network.SerializeToString()
    _found(network)
    assert network.SerializeToString() == before
