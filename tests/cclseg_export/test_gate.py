"""The gate: bad news first, nothing unmeasured goes unsaid, what runs nowhere is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from export_material import fragile_spec, labelled_by, write_fragile
from networks import write_graph
from onnx import helper, numpy_helper

from cclseg.segmenter import Segmenter
from cclseg_export.gate import Gate, ModelFile, Verdict, headlines, worst_loss
from cclseg_export.parity import Latency, Parity
from cclseg_export.shield import shield_float_layers


def _parity(**losses):
    return Parity(
        miou_reference=0.6,
        miou=0.59,
        iou=dict.fromkeys(losses, 0.5),
        iou_loss_points=losses,
        agreement=0.98,
        agreement_where_sure=0.999,
    )


def _verdict(precision, ratios, *, target="cpu", **losses):
    file = ModelFile(path=Path(f"net.{precision}.onnx"), precision=precision, target=target)
    verdict = Verdict(file)
    for backend, ratio in ratios.items():
        verdict.parity[backend] = _parity(**losses)
        verdict.latency[backend] = Latency(ms=10 / ratio, ratio=ratio)
    return verdict


def test_int8_must_beat_the_fastest_floating_point_file_of_its_backend():
    verdicts = [
        _verdict("fp32", {"onnxruntime": 1.0, "openvino": 1.0}),
        _verdict("fp16", {"onnxruntime": 0.2, "openvino": 2.5}),
        _verdict("int8", {"onnxruntime": 1.6, "openvino": 2.0}),
    ]
    (line,) = headlines(verdicts)
    assert line == (
        "net.int8.onnx is not faster than fp16 on openvino: 0.80 x as fast (5 ms a tile)."
    )


def test_refusals_come_before_lost_speed_and_missing_measurements():
    slow, unmeasured = _verdict("int8", {"openvino": 0.9}), _verdict("int8", {}, target="tensorrt")
    slow.rejected = "water on openvino loses 3 points"
    lines = headlines([_verdict("fp32", {"openvino": 1.0}), slow, unmeasured])
    assert [line.split(" ", 1)[1].split(" ")[1] for line in lines] == ["rejected:", "not", "not"]
    assert "cclseg val MODEL DATA" in lines[2]


def test_the_worst_loss_is_that_of_any_class_on_any_backend():
    parity = {"a": _parity(water=0.1, road=-2.0, none=None), "b": _parity(water=-1.0, road=0.3)}
    assert worst_loss(parity) == (0.3, "road on b")
    assert worst_loss({}) is None


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate")
    path = write_fragile(folder / "fragile.onnx")
    return path, labelled_by(path, folder / "data")


def _gate(dataset, budget_points=0.5):
    return Gate(dataset=dataset, split="test", budget_points=budget_points, threads=1)


def test_a_file_is_measured_on_every_backend_and_timed_beside_the_first(material):
    path, dataset = material
    file = ModelFile(path=path, precision="fp32")
    with Segmenter(path, backend="onnxruntime", threads=1) as reference:
        (verdict,) = _gate(dataset).judge(reference, [file])
    assert set(verdict.parity) == set(verdict.latency) == {"onnxruntime", "openvino"}
    assert verdict.rejected is None
    assert verdict.parity["onnxruntime"].agreement == 1
    assert verdict.latency["onnxruntime"].ratio == 1


def test_a_file_that_runs_nowhere_is_rejected_with_the_reason(material, tmp_path):
    path, dataset = material
    strange = write_graph(
        tmp_path / "strange.onnx",
        [helper.make_node("Strange", ["images"], ["logits"], domain="elsewhere")],
        inputs={"images": ["n", 3, 64, 64]},
        outputs={"logits": ["n", 3, 16, 16]},
        metadata=fragile_spec().to_metadata(),
        domains=("elsewhere",),
    )
    files = [
        ModelFile(path=path, precision="fp32"),
        ModelFile(path=strange, precision="int8"),
        ModelFile(path=strange, precision="int8", target="tensorrt"),
    ]
    with Segmenter(path, backend="onnxruntime", threads=1) as reference:
        verdicts = _gate(dataset).judge(reference, files)
    assert verdicts[0].rejected is None
    assert "Strange" in verdicts[1].rejected
    assert verdicts[2].rejected is None  # it may run on its device; the headline says unmeasured
    assert "was not measured" in headlines(verdicts)[-1]


def _write_between_pairs(path):
    """Writes a network with a layer in floating point whose small weights one step rounds badly."""
    weights = np.diag(np.float32([0.006, 0.006, 1]))[:, :, None, None]
    stored = {"step": np.float32(1 / 255), "zero": np.uint8(0), "fine": np.float32(1e-4)}
    pool = {"kernel_shape": [4, 4], "strides": [4, 4]}
    nodes = [
        helper.make_node("AveragePool", ["images"], ["pooled"], "pool", **pool),
        helper.make_node("QuantizeLinear", ["pooled", "step", "zero"], ["pooled_q"], "q"),
        helper.make_node("DequantizeLinear", ["pooled_q", "step", "zero"], ["pooled_dq"], "dq"),
        helper.make_node("Conv", ["pooled_dq", "weights"], ["found"], "layer"),
        helper.make_node("QuantizeLinear", ["found", "fine", "zero"], ["found_q"], "found_q"),
        helper.make_node("DequantizeLinear", ["found_q", "fine", "zero"], ["logits"], "logits"),
    ]
    return write_graph(
        path,
        nodes,
        inputs={"images": ["n", 3, 64, 64]},
        outputs={"logits": ["n", 3, 16, 16]},
        metadata=fragile_spec().to_metadata(),
        weights=[numpy_helper.from_array(a, n) for n, a in (stored | {"weights": weights}).items()],
    )


def test_a_file_that_a_library_rounds_on_its_own_is_rejected(material, tmp_path):
    """Its classes would be accurate enough; the same file with a shield is accepted."""
    path, dataset = material
    rounded = _write_between_pairs(tmp_path / "rounded.onnx")
    model = onnx.load(rounded)
    shield_float_layers(model)
    onnx.save(model, tmp_path / "shielded.onnx")
    files = [
        ModelFile(path=path, precision="fp32"),
        ModelFile(path=rounded, precision="int8"),
        ModelFile(path=tmp_path / "shielded.onnx", precision="int8"),
    ]
    tiles = [np.random.default_rng(0).uniform(0, 1, (1, 3, 64, 64)).astype(np.float32)]
    gate = Gate(dataset=dataset, split="test", budget_points=100, threads=1, tiles=tiles)
    with Segmenter(path, backend="onnxruntime", threads=1) as reference:
        _, refused, accepted = gate.judge(reference, files)
    assert refused.rejected.startswith("onnxruntime first differs in node 4 'found_q'")
    assert accepted.rejected is None
