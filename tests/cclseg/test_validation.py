"""What a validation notes of each image, and the page that shows it."""

from html.parser import HTMLParser

import pytest
from labelled import CLASSES, write_worse_and_worse

from cclseg import Segmenter
from cclseg.evaluate import evaluate
from cclseg.val_page import val_page
from cclseg.val_record import ValidationRecord


@pytest.fixture
def validated(tmp_path, network):
    dataset = write_worse_and_worse(tmp_path)
    record = ValidationRecord(len(CLASSES))
    with Segmenter(network, backend="onnxruntime", threads=1) as segmenter:
        matrix = evaluate(segmenter, dataset, "test", on_result=record.add)
        return matrix, record, segmenter.spec


def test_every_image_has_its_figures(validated):
    matrix, record, _ = validated
    assert [image.stem for image in record.images][-1] == "unlabelled"
    assert record.images[-1].miou is None
    accuracies = [image.accuracy for image in record.images[:-1]]
    assert accuracies == sorted(accuracies, reverse=True)
    right = sum(image.accuracy * image.pixels for image in record.images[:-1])
    assert right / matrix.pixels.sum() == pytest.approx(matrix.accuracy)


def test_the_worst_images_are_held_worst_first_and_no_more(validated):
    _, record, _ = validated
    assert [stem for stem, _ in record.worst] == [f"patch<{n}>" for n in range(9, 1, -1)]
    assert {panel.shape for _, panels in record.worst for panel in panels} == {(48, 64, 3)}


def test_the_page_shows_all_and_trusts_no_name(validated):
    page = val_page(*validated, title="model on <data>")
    assert "<data>" not in page
    assert "patch<9>" not in page
    assert "patch&lt;9&gt;" in page
    assert page.count("<img") == 4 * 8
    assert "<script" not in page
    balanced = _Balance()
    balanced.feed(page)
    assert balanced.open == []


class _Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("img", "meta", "br", "path", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "line"):
            assert self.open.pop() == tag
