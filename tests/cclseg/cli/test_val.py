"""The verb ``cclseg val``."""

import json

import pytest
from labelled import write_worse_and_worse


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return str(write_worse_and_worse(folder).root)


def test_it_writes_a_page_and_the_figures_of_each_image(cclseg, data, network, tmp_path):
    page, figures = tmp_path / "val.html", tmp_path / "val.json"
    words = ("--report", str(page), "--json", str(figures), "--threads", "1")
    done = cclseg("val", str(network), data, *words)
    assert done.returncode == 0, done.stderr
    assert "calibration error" in " ".join(done.stdout.split())
    content = json.loads(figures.read_text())
    assert len(content["per_image"]) == content["images"] == 11
    assert 0 <= content["calibration"]["error"] <= 1
    assert page.read_text().startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_is_refused_before_the_work(cclseg, data, network):
    done = cclseg("val", str(network), data, "--report", "/nowhere/val.html")
    assert done.returncode == 2
    assert "there is no folder /nowhere" in done.stderr
