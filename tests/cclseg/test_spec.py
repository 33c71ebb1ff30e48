"""The spec: round trips, aliases of other programs, and everything that can be wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg.errors import SpecError
from cclseg.spec import ModelSpec


def _spec(**changes):
    return ModelSpec(**{"name": "test", "class_names": ("land", "water"), **changes})


def test_metadata_round_trip_keeps_everything():
    spec = _spec(
        palette=((1, 2, 3), (4, 5, 6)),
        input_hw=(384, 512),
        gsd_m=0.3,
        precision="int8",
        trained_on=("dubai",),
        parity={"miou_fp32": 0.6},
    )
    assert ModelSpec.from_metadata(spec.to_metadata(), name="other") == spec


def test_metadata_values_are_text_as_onnx_demands():
    assert all(isinstance(value, str) for value in _spec().to_metadata().values())


def test_metadata_opens_in_other_programs():
    metadata = _spec(gsd_m=0.3, overlap=0.2).to_metadata()
    assert json.loads(metadata["model_type"]) == "Segmentor"
    assert json.loads(metadata["class_names"]) == {"0": "land", "1": "water"}
    assert json.loads(metadata["resolution"]) == pytest.approx(30)
    assert json.loads(metadata["tiles_overlap"]) == 20
    assert metadata["names"] == "{0: 'land', 1: 'water'}"
    assert metadata["imgsz"] == "[512, 512]"


def test_metadata_of_ultralytics_is_read():
    spec = ModelSpec.from_metadata(
        {"names": "{1: 'road', 0: 'land'}", "imgsz": "[640, 480]", "task": "semantic"}, name="yolo"
    )
    assert spec.class_names == ("land", "road")
    assert spec.input_hw == (640, 480)
    assert (spec.mean, spec.std) == ((0, 0, 0), (255, 255, 255))


def test_metadata_of_deepness_is_read():
    spec = ModelSpec.from_metadata(
        {
            "model_type": '"Segmentor"',
            "class_names": '{"0": "land", "1": "road"}',
            "tiles_size": "256",
            "tiles_overlap": "10",
            "standardization_mean": "[0.5, 0.5, 0.5]",
            "standardization_std": "[0.25, 0.25, 0.25]",
        },
        name="qgis",
    )
    assert spec.input_hw == (256, 256)
    assert spec.overlap == pytest.approx(0.1)
    assert spec.mean == (127.5,) * 3
    assert spec.std == (63.75,) * 3


def test_metadata_is_parsed_and_never_evaluated():
    with pytest.raises(SpecError, match="expected JSON or a literal"):
        ModelSpec.from_metadata({"names": "__import__('os').getcwd()"}, name="evil")


def test_model_without_metadata_says_what_to_give():
    with pytest.raises(SpecError, match="give a ModelSpec"):
        ModelSpec.from_metadata({}, name="bare")


@given(st.text())
def test_any_text_is_a_spec_or_a_spec_error(text):
    with pytest.raises(SpecError):
        ModelSpec.from_json(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": ()},
        {"class_names": ("a", "a")},
        {"palette": ((0, 0, 0),)},
        {"palette": ((0, 0, 0), (0, 0, 256))},
        {"mean": (1.0,)},
        {"std": (1.0, 1.0, 0.0)},
        {"input_hw": (0, 512)},
        {"output_stride": 0},
        {"input_hw": (513, 513), "output_stride": 8},
        {"overlap": 1.0},
    ],
)
def test_contradictions_are_refused(changes):
    with pytest.raises(SpecError, match="model 'test'"):
        _spec(**changes)
