"""Parity figures against counts made by hand, and pictures of the pixels behind them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from export_material import fragile_spec, write_dataset
from networks import write_brightest_band

from cclseg.errors import InputError
from cclseg.metrics import ConfusionMatrix
from cclseg.segmenter import Segmenter
from cclseg_export.parity import SURE, compare, measure


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A network that is sure of what it says, and one that favours red."""
    folder = tmp_path_factory.mktemp("parity")
    spec = dataclasses.replace(fragile_spec(), std=(20.0,) * 3)
    turned = dataclasses.replace(spec, mean=(-30.0, 0.0, 0.0))
    return [
        write_brightest_band(folder / f"{name}.onnx", s)
        for name, s in {"plain": spec, "turned": turned}.items()
    ]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Labels that are right on the left half and ignored on the right."""

    def labeller(image):
        label = image[:, :, ::-1].argmax(axis=2)
        label[:, image.shape[1] // 2 :] = 255
        return label

    return write_dataset(tmp_path_factory.mktemp("parity") / "data", labeller)


def test_figures_are_those_counted_by_hand(models, dataset):
    expected, found = ConfusionMatrix(3), ConfusionMatrix(3)
    same = sure = sure_same = pixels = 0
    with (
        Segmenter(models[0], backend="onnxruntime", threads=1) as reference,
        Segmenter(models[1], backend="onnxruntime", threads=1) as candidate,
    ):
        seen = []
        (parity,) = measure(reference, [candidate], dataset, "test", on_image=seen.append)
        for stem in dataset.stems("test"):
            sample = dataset.load(stem)
            before = reference(sample.image, channels="bands")
            after = candidate(sample.image, channels="bands").mask
            expected.update(before.mask, sample.mask)
            found.update(after, sample.mask)
            agree, certain = before.mask == after, before.confidence >= SURE
            same, pixels = same + agree.sum(), pixels + agree.size
            sure, sure_same = sure + certain.sum(), sure_same + (agree & certain).sum()
    assert [compared.sample.stem for compared in seen] == list(dataset.stems("test"))
    assert (seen[-1].done, seen[-1].total) == (2, 2)
    assert parity.miou_reference == expected.miou
    assert parity.miou == found.miou
    assert parity.agreement == same / pixels
    assert parity.agreement_where_sure == sure_same / max(sure, 1)
    np.testing.assert_allclose(
        list(parity.iou_loss_points.values()), 100 * (expected.iou - found.iou)
    )
    assert parity.worst_loss == max((loss, name) for name, loss in parity.iou_loss_points.items())


def test_a_network_agrees_with_itself_and_loses_nothing(models, dataset):
    figures = compare(models[0], models[0], dataset, "val", backends=["onnxruntime"], threads=1)
    found = figures["backends"]["onnxruntime"]
    assert (found["agreement"], found["agreement_where_sure"]) == (1, 1)
    assert set(found["iou_loss_points"].values()) == {0.0}
    assert found["latency_ms"] > 0


def test_a_split_without_any_label_is_refused(models, tmp_path):
    dataset = write_dataset(tmp_path / "data", lambda image: np.full(image.shape[:2], 255))
    with (
        Segmenter(models[0], backend="onnxruntime", threads=1) as network,
        pytest.raises(InputError, match="no pixel of the split 'test'"),
    ):
        measure(network, [network], dataset, "test")
