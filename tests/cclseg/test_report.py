import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg import report

_VOID = {"meta", "img", "br"}
HOSTILE = "<script>alert(\"1\")</script> & 'x'"


class Outline(HTMLParser):
    """Checks that tags nest, and keeps texts and tags."""

    def __init__(self, document):
        super().__init__()
        self.open, self.texts, self.tags = [], [], []
        self.feed(document)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def full_page(word):
    image = np.zeros((4, 6, 3), np.uint8)
    return report.page(
        word,
        report.element("h1", word),
        report.tiles({word: word}),
        report.section(word, report.legend([word], [(1, 2, 3)])),
        report.table([word], [[word], [report.swatch(word, (0, 0, 0))]], total=[word]),
        report.facts({word: word}),
        report.contact_sheet([word], [[report.picture(image, word, caption=word)]]),
        report.line_plot([report.Series(word, [0.1, None, 0.3])], x_label=word),
        report.stack_bar({word: 1.0}, unit=word),
        report.notice([word]),
    )


@given(st.text(min_size=1))
def test_no_text_becomes_markup(word):
    plain, given_word = Outline(full_page("x")), Outline(full_page(word))
    assert [tag for tag, _ in given_word.tags] == [tag for tag, _ in plain.tags]


def test_hostile_text_is_shown_as_it_is():
    outline = Outline(full_page(HOSTILE))
    assert HOSTILE in outline.texts
    assert "script" not in {tag for tag, _ in outline.tags}


def test_a_page_loads_nothing_from_elsewhere():
    document = full_page("x")
    links = [
        value
        for _, attributes in Outline(document).tags
        for name, value in attributes.items()
        if name in ("src", "href", "action", "data", "srcset")
    ]
    assert links
    assert all(value.startswith("data:image/") for value in links)
    assert not re.search(r"url\(|@import|https?:", document)


def test_a_page_is_for_both_schemes_and_for_phones():
    document = full_page("x")
    assert "prefers-color-scheme: dark" in document
    assert 'name="viewport"' in document
    assert "@media (max-width" in document


@pytest.mark.parametrize("lossless", [True, False])
def test_a_picture_holds_the_image(lossless):
    image = np.full((20, 30, 3), (40, 80, 200), np.uint8)
    _, attributes = Outline(report.picture(image, "a field", lossless=lossless)).tags[1]
    kind, data = attributes["src"].split(";base64,")
    assert kind == ("data:image/png" if lossless else "data:image/jpeg")
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(decoded.astype(int) - image).max() <= (0 if lossless else 3)
    assert (attributes["width"], attributes["height"], attributes["alt"]) == ("30", "20", "a field")


def test_a_plot_maps_shares_to_its_height_and_leaves_gaps():
    plot = report.line_plot([report.Series("a", [0.0, 1.0, None, 0.5])], x_label="s")
    (path,) = re.findall(r' d="([^"]+)"', plot)
    commands = re.findall(r"([ML])([\d.]+) ([\d.]+)", path)
    assert [command for command, _, _ in commands] == ["M", "L", "M"]
    y = [float(value) for _, _, value in commands]
    assert y[0] > y[2] > y[1]
    assert y[2] == pytest.approx((y[0] + y[1]) / 2)
    x = [float(value) for _, value, _ in commands]
    assert x[1] - x[0] == pytest.approx((x[2] - x[0]) / 3, abs=0.1)


def test_a_plot_of_one_value_does_not_divide_by_zero():
    assert "M44.0" in report.line_plot([report.Series("a", [0.5])], x_label="s")


def test_parts_of_a_bar_fill_it():
    widths = re.findall(r"width:([\d.]+)%", report.stack_bar({"a": 1.0, "b": 3.0}, unit="ms"))
    assert [float(width) for width in widths] == [25.0, 75.0]


def test_a_missing_figure_is_a_dash_without_a_bar():
    assert report.share_bar(None) == "–"
    assert "width:50.0%" in report.share_bar(0.5)
    assert "width:100.0%" in report.share_bar(1.7)
