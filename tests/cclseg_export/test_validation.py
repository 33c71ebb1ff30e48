"""Candidates against a reference that was run once: by labels, and by what its masks say."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from export_material import labelled_by, write_fragile
from onnx import numpy_helper

from cclseg.segmenter import Segmenter
from cclseg_export.validation import Validation


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A network, the data that it labelled, and the network with a leaning towards one class."""
    folder = tmp_path_factory.mktemp("validation")
    path = write_fragile(folder / "fragile.onnx")
    model = onnx.load(path)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "head.bias")
    bias.CopyFrom(numpy_helper.from_array(np.array([0.05, 0, 0], np.float32), bias.name))
    onnx.save(model, folder / "leaning.onnx")
    return path, labelled_by(path, folder / "data"), folder / "leaning.onnx"


def _opened(path):
    return Segmenter(path, backend="onnxruntime", threads=1)


def test_the_reference_itself_loses_nothing_and_one_that_leans_does(material, tmp_path):
    path, dataset, leaning = material
    with _opened(path) as reference:
        validation = Validation(reference, dataset, "test", tmp_path)
    with _opened(path) as same, _opened(leaning) as other:
        np.testing.assert_array_equal(validation.likely_losses(same), 0)
        assert validation.miou_loss(same) == 0
        assert validation.likely_losses(other).max() > 0.5
        assert validation.miou_loss(other) > 0


def test_labels_that_forgive_do_not_hide_a_drift(material, tmp_path, monkeypatch):
    """Where the labels are the leaning network's own, leaning gains; it drifts all the same."""
    path, dataset, leaning = material
    load = type(dataset).load
    with _opened(leaning) as other:

        def forgiving(self, stem):
            sample = load(self, stem)
            mask = other(sample.image, channels="bands").mask
            return type(sample)(sample.stem, sample.image, mask)

        monkeypatch.setattr(type(dataset), "load", forgiving)
        with _opened(path) as reference:
            validation = Validation(reference, dataset, "test", tmp_path)
        assert validation.miou_loss(other) < 0
        assert validation.likely_losses(other).max() > 0.5
