"""The export job as a whole: good files get their names, bad ones do not."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from export_material import (
    FRAGILE_NODES,
    fragile_spec,
    labelled_by,
    random_checkpoint,
    write_fragile,
)

from cclseg.errors import BackendError, InputError
from cclseg.evaluate import evaluate
from cclseg.files import file_sha256
from cclseg.segmenter import Segmenter
from cclseg_export.bias import correct_bias
from cclseg_export.export import export_model
from cclseg_export.options import ExportOptions
from cclseg_export.tiles import unseen_tiles


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    """A network that needs two of its three layers in floating point, and its dataset."""
    folder = tmp_path_factory.mktemp("fragile")
    path = write_fragile(folder / "fragile.onnx")
    return path, labelled_by(path, folder / "data")


def _export(fragile, out, **options):
    path, dataset = fragile
    options = {"int8": True, "calibration": dataset.root, "threads": 1, **options}
    return export_model(path, out, ExportOptions(**options))


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_within_the_budget_gets_its_name_and_carries_its_parity(fragile, tmp_path):
    result = _export(fragile, tmp_path, keep_float=FRAGILE_NODES)
    assert result.rejected is None
    assert _names(tmp_path) == [
        "fragile.int8.onnx", "fragile.onnx", "parity.html", "parity.json"
    ]  # fmt: skip
    report = json.loads((tmp_path / "parity.json").read_text())
    assert report == result.report
    fp32, int8 = report["files"]
    assert set(int8["backends"]) == {"onnxruntime", "openvino"}
    for figures in int8["backends"].values():
        assert figures["miou_reference"] == 1  # the labels are the origin's own answers
        assert figures["latency_ms"] > 0
    assert fp32["backends"]["onnxruntime"]["agreement"] == 1
    path = tmp_path / "fragile.int8.onnx"
    assert int8["sha256"] == file_sha256(path)
    with Segmenter(path, backend="onnxruntime", threads=1) as segmenter:
        assert segmenter.spec.precision == "int8"
        assert segmenter.spec.parity["split"] == "test"
        assert json.loads(json.dumps(int8["backends"])) == segmenter.spec.parity["backends"]
        # What the file says of itself is what anybody measures on it.
        measured = evaluate(segmenter, fragile[1], "test").miou
    assert measured == pytest.approx(int8["backends"]["onnxruntime"]["miou"])


def test_a_file_outside_the_budget_is_called_rejected_and_says_what_to_try(fragile, tmp_path):
    result = _export(fragile, tmp_path)
    assert result.rejected is not None
    assert "the budget is 0.5 points" in result.rejected
    assert _names(tmp_path) == [
        "fragile.int8.onnx.rejected", "fragile.onnx", "parity.html", "parity.json"
    ]  # fmt: skip
    assert result.report["headlines"][0].startswith("fragile.int8.onnx is rejected")
    assert any("--auto" in line for line in result.report["advice"])
    with pytest.raises(InputError, match="no backend loads"):
        Segmenter(tmp_path / "fragile.int8.onnx.rejected")


def test_a_later_export_takes_the_place_of_an_earlier_one(fragile, tmp_path):
    _export(fragile, tmp_path)
    _export(fragile, tmp_path, keep_float=FRAGILE_NODES)
    assert "fragile.int8.onnx.rejected" not in _names(tmp_path)
    _export(fragile, tmp_path)
    assert "fragile.int8.onnx" not in _names(tmp_path)


def test_the_search_keeps_exactly_the_layers_that_need_it(fragile, tmp_path):
    result = _export(fragile, tmp_path, auto=True)
    assert result.rejected is None
    search = result.report["search"]
    assert sorted(search["kept_float"]) == sorted(FRAGILE_NODES)
    assert all("is likely to lose" in reason for reason in search["kept_float"].values())
    assert search["complete"]
    assert not search["trials"][0]["passes"]
    by_node = {layer["node"]: layer for layer in search["layers"]}
    assert by_node["head"]["snr_db"] > 20 + max(by_node[n]["snr_db"] for n in FRAGILE_NODES)
    assert by_node["gather"]["miou_cost_points"] > 10
    assert by_node["gather"]["module"] == "gather"
    kernels = {
        node.name: node.input[1] for node in onnx.load(tmp_path / "fragile.int8.onnx").graph.node
        if node.op_type == "Conv"
    }  # fmt: skip
    assert [kernels[node] for node in FRAGILE_NODES] == [f"{n}.weight" for n in FRAGILE_NODES]
    assert kernels["head"] != "head.weight"


def test_the_bias_is_corrected_on_images_that_were_not_learned(fragile, tmp_path, monkeypatch):
    """Only the images of "val" count, where there are any; the ranges are those of "train"."""
    seen = []

    def noting(model, quantized, tiles, *, expected=None):
        seen.append(tiles)
        return correct_bias(model, quantized, tiles, expected=expected)

    monkeypatch.setattr("cclseg_export.int8.correct_bias", noting)
    _export(fragile, tmp_path, keep_float=FRAGILE_NODES)
    _export(fragile, tmp_path, keep_float=FRAGILE_NODES, search_split="absent")
    spec, dataset = fragile_spec(), fragile[1]
    expected = [unseen_tiles(dataset, split, spec) for split in ("val", "train")]
    np.testing.assert_array_equal(seen[0][0], expected[0][0])
    np.testing.assert_array_equal(seen[1][0], expected[1][0])
    assert not np.array_equal(seen[0][0], seen[1][0])


def test_the_search_never_looks_at_the_split_that_the_gate_measures(fragile, tmp_path, monkeypatch):
    loaded = []
    dataset_class = type(fragile[1])
    load = dataset_class.load
    monkeypatch.setattr(
        dataset_class, "load", lambda self, stem: (loaded.append(stem), load(self, stem))[1]
    )
    stage = []

    def on_progress(name, done, total):
        stage.append((name, len(loaded)))

    path, dataset = fragile
    options = ExportOptions(int8=True, calibration=dataset.root, auto=True, threads=1)
    export_model(path, tmp_path, options, on_progress=on_progress)
    first = next(count for name, count in stage if name == "search")
    last = next(count for name, count in stage if name == "quantise")
    assert set(loaded[first:last]) == set(dataset.stems("val"))


def test_each_target_gets_a_file_of_its_own_from_one_calibration(fragile, tmp_path):
    result = _export(fragile, tmp_path, targets=("cpu", "tensorrt"), keep_float=FRAGILE_NODES)
    assert "fragile.tensorrt.int8.onnx" in _names(tmp_path)
    assert not [name for name in _names(tmp_path) if "stand-in" in name]
    tensorrt = result.report["files"][-1]
    assert tensorrt["target"] == "tensorrt"
    assert set(tensorrt["backends"]) == {"onnxruntime"}  # computes what TensorRT reads
    assert "latency_ratio" not in tensorrt["backends"]["onnxruntime"]
    assert any("for its accuracy alone" in line for line in result.report["headlines"])


def test_a_file_in_16_bits_is_measured_like_the_others(fragile, tmp_path):
    path, dataset = fragile
    options = ExportOptions(fp16=True, data=dataset.root, threads=1)
    result = export_model(path, tmp_path, options)
    assert [file["name"] for file in result.report["files"]] == [
        "fragile.onnx",
        "fragile.fp16.onnx",
    ]
    for figures in result.report["files"][1]["backends"].values():
        assert 0.99 < figures["agreement"] <= 1
    with Segmenter(tmp_path / "fragile.fp16.onnx", backend="onnxruntime", threads=1) as segmenter:
        assert segmenter.spec.precision == "fp16"


def test_a_checkpoint_is_compared_with_torch(tmp_path, fragile):
    classes = fragile[1].class_names
    path = tmp_path / "best.pt"
    random_checkpoint("ccl-nano", classes).save(path)
    options = ExportOptions(data=fragile[1].root, threads=1, license="Apache-2.0")
    result = export_model(path, tmp_path / "out", options)
    assert result.rejected is None
    assert 0 < result.report["conversion_error"] < 1e-3
    assert result.report["origin"]["kind"] == "checkpoint"
    for figures in result.report["files"][0]["backends"].values():
        assert figures["agreement"] > 0.999
    with Segmenter(tmp_path / "out" / "ccl-nano.onnx", backend="onnxruntime", threads=1) as found:
        assert found.spec.license == "Apache-2.0"
        assert found.spec.source_sha256 == file_sha256(path)


def test_without_labelled_images_the_report_says_that_nothing_was_measured(fragile, tmp_path):
    result = export_model(fragile[0], tmp_path, ExportOptions())
    assert _names(tmp_path) == ["fragile.onnx", "parity.html", "parity.json"]
    assert result.report["headlines"] == [
        "Accuracy was not measured: no labelled images were given (--data FOLDER)."
    ]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"calibration": None}, "give --calib"),
        ({"split": "tset"}, "no images in a split 'tset'"),
        ({"auto": True, "search_split": "vla"}, "no images in a split 'vla'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(fragile, tmp_path, options, reason):
    with pytest.raises(InputError, match=reason):
        _export(fragile, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_other_classes_bands_or_no_labels_are_refused_before_anything_is_written(fragile, tmp_path):
    dataset = fragile[1]
    out = tmp_path / "out"
    images = dataset.root / "images"
    with pytest.raises(InputError, match="give a dataset folder with --data"):
        _export(fragile, out, calibration=images)
    spec = fragile_spec(class_names=("a", "b", "c"))
    with pytest.raises(InputError, match="knows the classes a, b, c"):
        _export(fragile, out, spec=spec)
    four = tmp_path / "best.pt"
    random_checkpoint("ccl-nano", dataset.class_names, bands=4).save(four)
    with pytest.raises(InputError, match="have 3 bands, the model takes 4"):
        export_model(four, out, ExportOptions(data=dataset.root))
    assert not out.exists()


def test_a_damaged_source_is_refused(tmp_path):
    path = tmp_path / "best.pt"
    path.write_bytes(b"PK half a checkpoint")
    with pytest.raises(BackendError, match="damaged or no checkpoint"):
        export_model(path, tmp_path / "out", ExportOptions())
    assert _names(tmp_path) == ["best.pt"]


def test_a_node_that_does_not_exist_leaves_nothing_behind(fragile, tmp_path):
    with pytest.raises(InputError, match="no node 'haed'"):
        _export(fragile, tmp_path / "out", keep_float=("haed",))
    assert not (tmp_path / "out").exists()
