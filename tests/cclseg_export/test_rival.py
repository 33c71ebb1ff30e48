"""Training with quantisation is worth it only where it beats INT8 made from its origin."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from export_material import random_checkpoint, write_dataset

from cclseg.errors import InputError
from cclseg_export.export import export_model
from cclseg_export.gate import ModelFile, Verdict
from cclseg_export.options import ExportOptions
from cclseg_export.origin import load_origin, load_reference
from cclseg_export.parity import Parity
from cclseg_export.rival import beaten_by, has_rival
from cclseg_trainer.models import QuantizedNetwork
from cclseg_trainer.models.blocks import merged_for_inference


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An origin and what training with quantisation for no step at all makes of it."""
    folder = tmp_path_factory.mktemp("rival")
    dataset = write_dataset(folder / "data", lambda image: image.argmax(axis=2))
    origin = random_checkpoint("ccl-nano", dataset.class_names)
    origin.save(folder / "origin.pt")
    quantized = QuantizedNetwork(merged_for_inference(origin.build()))
    dataclasses.replace(
        origin,
        train_config=dataclasses.replace(origin.train_config, quantize=True),
        weights=quantized.state_dict(),
    ).save(folder / "quantized.pt")
    return folder


def test_a_checkpoint_is_compared_with_its_reference_and_must_beat_it(runs, tmp_path):
    options = ExportOptions(
        int8=True,
        calibration=runs / "data",
        reference=runs / "origin.pt",
        budget_points=100,
        threads=1,
    )
    result = export_model(runs / "quantized.pt", tmp_path, options)
    report = result.report
    assert (report["origin"]["file"], report["reference"]["file"]) == ("quantized.pt", "origin.pt")
    fp32, int8 = report["files"]
    for backend, figures in int8["backends"].items():
        # Not a step was trained: both are the same network, and its training was worth nothing.
        assert figures["miou"] == pytest.approx(report["rival"]["backends"][backend]["miou"])
    assert fp32["rejected"] is None
    assert "INT8 made from origin.pt without training" in int8["rejected"]
    page = (tmp_path / "parity.html").read_text()
    assert "INT8 of origin.pt, untrained" in page
    assert "beside origin.pt, the reference" in page
    assert not [path for path in tmp_path.iterdir() if "untrained" in path.name]


def test_there_is_a_rival_only_where_an_origin_is_known(runs):
    origin, quantized = (load_origin(runs / f"{name}.pt") for name in ("origin", "quantized"))
    assert has_rival(quantized, origin)
    assert not has_rival(quantized, None)
    assert not has_rival(origin, origin)


def _verdict(miou, *, rejected=None):
    parity = Parity(
        miou_reference=0.6,
        miou=miou,
        iou={},
        iou_loss_points={},
        agreement=1.0,
        agreement_where_sure=None,
    )
    file = ModelFile(path=Path("net.int8.onnx"), precision="int8")
    return Verdict(file, {"onnxruntime": parity}, rejected=rejected)


def test_a_better_file_and_one_without_a_good_rival_are_not_beaten(runs):
    origin = load_origin(runs / "origin.pt")
    own = _verdict(0.55)
    assert beaten_by(own, _verdict(0.54), origin) is None
    assert beaten_by(own, _verdict(0.56, rejected="water loses 2 points"), origin) is None
    assert "0.5600, this one 0.5500" in beaten_by(own, _verdict(0.56), origin)


@pytest.mark.parametrize(
    ("variant", "changes", "reason"),
    [
        ("ccl-nano", {"class_names": ("a", "b", "c")}, "has the class names a, b, c"),
        ("ccl-nano", {"bands": 4}, "has the bands band0, band1, band2, band3"),
        ("ccl-lite0", {}, "from a ccl-nano, the reference"),
    ],
)
def test_a_reference_that_does_other_work_is_refused(runs, tmp_path, variant, changes, reason):
    quantized = load_origin(runs / "quantized.pt")
    names = changes.pop("class_names", quantized.spec.class_names)
    random_checkpoint(variant, names, **changes).save(tmp_path / "other.pt")
    with pytest.raises(InputError, match=reason):
        load_reference(tmp_path / "other.pt", quantized)
