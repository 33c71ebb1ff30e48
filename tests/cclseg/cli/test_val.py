"""The verb ``cclseg val``."""

import json

import pytest
from labelled import write_worse_and_worse
from networks import brightest_band_spec, write_brightest_band


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


def test_it_averages_over_symmetries_when_asked_to(cclseg, data, network, tmp_path):
    figures = {}
    for tta in ("none", "d4"):
        path = tmp_path / f"{tta}.json"
        words = ("--tta", tta, "--json", str(path), "--threads", "1")
        done = cclseg("val", str(network), data, *words)
        assert done.returncode == 0, done.stderr
        assert ("averaged over d4" in done.stdout) == (tta == "d4")
        figures[tta] = json.loads(path.read_text())
    assert [content["tta"] for content in figures.values()] == ["none", "d4"]
    # The network is symmetric: only near ties between classes may change.
    assert figures["d4"]["miou"] == pytest.approx(figures["none"]["miou"], abs=0.01)


def test_it_refines_when_asked_to(cclseg, data, network, tmp_path):
    figures = {}
    for refine in ("off", "fast", "full"):
        path = tmp_path / f"{refine}.json"
        words = ("--refine", refine, "--json", str(path), "--threads", "1")
        done = cclseg("val", str(network), data, *words)
        assert done.returncode == 0, done.stderr
        assert (f"refined ({refine})" in done.stdout) == (refine != "off")
        figures[refine] = json.loads(path.read_text())
    assert [content["refine"] for content in figures.values()] == ["off", "fast", "full"]
    # Patches of one colour with sharp edges: blocks of logits across them are what goes wrong.
    assert figures["full"]["boundary_f"] >= figures["off"]["boundary_f"]


def test_quarter_turns_of_long_tiles_are_refused_with_advice(cclseg, data, tmp_path):
    wide = write_brightest_band(tmp_path / "wide.onnx", brightest_band_spec(tile_hw=(32, 64)))
    done = cclseg("val", str(wide), data, "--tta", "d4", "--threads", "1")
    assert done.returncode == 1
    assert "use tta='flips'" in " ".join(done.stderr.split())
    assert cclseg("val", str(wide), data, "--tta", "flips", "--threads", "1").returncode == 0
