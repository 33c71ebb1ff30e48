"""Costs of layers: what one layer alone does to the logits, measured without labels."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from export_material import FRAGILE_NODES, TILE_HW, fragile_spec, write_fragile
from onnx import helper, numpy_helper

from cclseg_export.calibrate import calibrate
from cclseg_export.plan import quantizable_nodes
from cclseg_export.sensitivity import layer_costs, quantized_alone


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    model = onnx.load(write_fragile(tmp_path_factory.mktemp("sensitivity") / "fragile.onnx"))
    rng = np.random.default_rng(0)
    tiles = [rng.random((1, 3, *TILE_HW), np.float32) for _ in range(3)]
    return model, calibrate(model, tiles, spec=fragile_spec()), tiles


def _run(model, tile):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"images": tile})[0]


def test_costs_are_ranked_and_share_the_whole_error(calibrated):
    model, ranges, tiles = calibrated
    seen = []
    costs = layer_costs(
        model, ranges, dict.fromkeys(quantizable_nodes(model), "cpu"), tiles,
        on_layer=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert {cost.node for cost in costs[:2]} == set(FRAGILE_NODES)
    assert [cost.snr_db for cost in costs] == sorted(cost.snr_db for cost in costs)
    assert sum(cost.share for cost in costs) == pytest.approx(1)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_cost_is_the_error_of_the_file_with_that_layer_alone_in_8_bits(calibrated):
    model, ranges, tiles = calibrated
    (cost,) = layer_costs(model, ranges, {"gather": "cpu"}, tiles)
    alone = quantized_alone(model, ranges, "gather", "cpu")
    expected = [_run(model, tile) for tile in tiles]
    errors = [_run(alone, tile) - e for tile, e in zip(tiles, expected, strict=True)]
    ratio = np.mean(np.square(expected)) / np.mean(np.square(errors))
    assert cost.snr_db == pytest.approx(10 * math.log10(ratio), abs=0.01)
    assert (cost.op, cost.module, cost.share) == ("Conv", "gather", 1)
    assert cost.slowdown > 0


def test_only_that_layer_is_quantised(calibrated):
    model, ranges, _ = calibrated
    alone = quantized_alone(model, ranges, "head", "cpu")
    stored = {tensor.name: tensor.data_type for tensor in alone.graph.initializer}
    assert stored["spread.weight"] == stored["gather.weight"] == onnx.TensorProto.FLOAT
    assert "head.weight" not in stored


def test_a_layer_whose_rounding_divides_by_zero_costs_the_whole_signal():
    """Small numbers beside a large one are rounded to 0, and the next node divides by them."""
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32)[:, :, None, None], "copy.weight")
    nodes = [
        helper.make_node("Conv", ["images", "copy.weight"], ["copied"], name="copy"),
        helper.make_node("Div", ["images", "copied"], ["logits"], name="share"),
    ]
    images, logits = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3, 2, 2])
        for name in ("images", "logits")
    )
    graph = helper.make_graph(nodes, "division", [images], [logits], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    tile = np.full((1, 3, 2, 2), 1e-4, np.float32)
    tile[:, 0] = 1
    ranges = calibrate(model, [tile], spec=fragile_spec())
    (cost,) = layer_costs(model, ranges, {"copy": "cpu"}, [tile])
    assert (cost.snr_db, cost.share) == (0.0, 1.0)
