"""The page: whole markup, no words that become markup, red where the budget is broken."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from export_material import fragile_spec

from cclseg.dataset import Sample
from cclseg_export.gallery import Gallery
from cclseg_export.parity import Compared
from cclseg_export.parity_page import parity_page

_VOID = {"meta", "img", "br"}
_FIGURES = {
    "miou_reference": 0.6,
    "miou": 0.58,
    "iou": {"redest": 0.5, "greenest": 0.4, "blueest": None},
    "iou_loss_points": {"redest": 3.0, "greenest": -0.2, "blueest": None},
    "agreement": 0.98,
    "agreement_where_sure": 0.999,
    "latency_ms": 12.5,
    "latency_ratio": 1.8,
}


def _file(name, precision, *, rejected=None):
    return {
        "name": name, "precision": precision, "target": "cpu", "bytes": 1_500_000, "sha256": "0f",
        "rejected": rejected, "kept_float": [], "failures": {},
        "backends": {"onnxruntime": _FIGURES},
    }  # fmt: skip


@pytest.fixture
def content():
    layer = {"node": "gather", "op": "Conv", "module": "head.0", "snr_db": 21.5, "share": 0.7}
    return {
        "model": "fragile",
        "origin": {"file": "best.pt", "sha256": "ab", "kind": "checkpoint"},
        "reference": {"file": "first.pt", "sha256": "cd", "kind": "checkpoint"},
        "rival": _file("first.untrained.int8.onnx", "int8"),
        "headlines": ["fragile.int8.onnx is rejected: redest loses 3.00 points."],
        "advice": ["Keep layers: --auto."],
        "conversion_error": 1e-6,
        "data": {"name": "squares", "split": "test", "images": 2},
        "budget_points": 0.5,
        "calibration": {"tiles": 64, "method": "percentile", "percentile": 99.99},
        "files": [_file("a.onnx", "fp32"), _file("a.int8.onnx", "int8", rejected="redest")],
        "search": {
            "split": "val", "complete": False, "within_budget": False,
            "kept_float": {"gather": "in 8 bits too, red is likely to lose 3.00 points"},
            "trials": [{"kept": [], "loss_points": 9.0, "place": "redest on a", "passes": False}],
            "layers": [layer | {"kept_float": True, "miou_cost_points": None}],
        },
        "machine": {"cpu": "Some CPU", "instruction_sets": ["AVX2"], "threads": 2,
                    "versions": {"cclseg": "0.1.0"}},
        "seconds": {"convert": 3.0},
    }  # fmt: skip


class _Outline(HTMLParser):
    """Checks that tags nest, and keeps the words of each element by its class."""

    def __init__(self, document):
        super().__init__()
        self.open, self.tags, self.words, self.by_class = [], [], [], {}
        self.feed(document)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in _VOID:
            self.open.append((tag, dict(attrs).get("class")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.words.append(data)
        self.by_class.setdefault(self.open[-1][1] if self.open else None, []).append(data)


def _compared(*, stem, differing):
    """An image of 10 rows of which some get another class than the original said."""
    image = np.full((10, 8, 3), 100, np.uint8)
    label = np.zeros((10, 8), np.uint8)
    expected, found = label.copy(), label.copy()
    found[:differing] = 1
    return Compared(1, 1, Sample(stem, image, label), expected, [found])


def test_losses_outside_the_budget_are_red_and_gains_are_not(content):
    page = _Outline(parity_page(content, fragile_spec(), None))
    assert set(page.by_class["lost"]) == {"-3.00", "-9.00"}
    assert "+0.20" in page.words
    assert "fragile: rejected" in page.words


def test_every_part_of_the_report_is_on_the_page(content):
    page = parity_page(content, fragile_spec(), None)
    for word in (*content["headlines"], *content["advice"], "head.0", "21.5 dB", "The time was up"):
        assert word in page


@pytest.mark.parametrize("missing", ["search", "calibration", "conversion_error", "data"])
def test_parts_that_are_missing_leave_a_whole_page(content, missing):
    content[missing] = None
    if missing == "data":
        for file in content["files"]:
            file["backends"] = {}
    _Outline(parity_page(content, fragile_spec(), None))


def test_no_word_of_a_report_becomes_markup(content):
    plain = _Outline(parity_page(content, fragile_spec(), None))
    text = json.dumps(content).replace("best.pt", "<i>").replace("head.0", "</td>")
    hostile = _Outline(parity_page(json.loads(text), fragile_spec(), None))
    assert hostile.tags == plain.tags
    assert "<i>" in "".join(hostile.words)


def test_the_gallery_keeps_the_images_that_differ_most():
    gallery = Gallery(fragile_spec(), candidate=0)
    for differing in (1, 7, 3, 0, 5, 2, 6, 4):
        gallery.add(_compared(stem=f"image{differing}", differing=differing))
    assert [row.stem for row in gallery.rows] == [f"image{n}" for n in (7, 6, 5, 4, 3)]
    assert gallery.rows[0].differing == 0.7


def test_differences_are_coloured_by_who_is_right():
    compared = _compared(stem="a", differing=3)
    compared.sample.mask[1] = 1  # here the candidate is right
    compared.sample.mask[2] = 255  # here nobody knows
    gallery = Gallery(fragile_spec(), candidate=0)
    gallery.add(compared)
    difference = gallery.rows[0].panels[-1]
    worse, better, unknown, same = (tuple(difference[row, 0]) for row in range(4))
    assert worse[2] == max(worse)
    assert better[0] == max(better)
    assert len({worse, better, unknown, same}) == 4
    assert len(set(same)) == 1  # grey where both say the same
    coloured_label = gallery.rows[0].panels[1]
    assert tuple(coloured_label[0, 0]) == fragile_spec().palette[0][::-1]


def test_images_of_any_bands_and_type_can_be_shown():
    for shape, dtype in (((9, 9, 1), np.uint8), ((9, 9, 5), np.uint16), ((9, 9, 4), np.float32)):
        image = np.random.default_rng(0).uniform(0, 200, shape).astype(dtype)
        mask = np.zeros((9, 9), np.uint8)
        gallery = Gallery(fragile_spec(), candidate=0)
        gallery.add(Compared(1, 1, Sample("a", image, mask), mask, [mask + 1]))
        assert gallery.rows[0].panels[0].shape == (9, 9, 3)
        assert np.ptp(gallery.rows[0].panels[0]) > 50
