"""What is kept between starts: only where the user says, only what fits, only what is whole."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from networks import brightest_band_spec, write_brightest_band

from cclseg import compiled_cache
from cclseg.backends import choose
from cclseg.backends.choose import open_backend
from cclseg.compiled_cache import CACHE_VARIABLE, keep_entry, load_entry
from cclseg.errors import InputError, SinkError

openvino = pytest.importorskip("openvino")


@pytest.fixture
def folder(monkeypatch, tmp_path):
    named = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(named))
    return named


def entries(folder):
    return sorted(folder.glob("*.entry"))


def test_without_a_folder_nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    keep_entry(b"content", "part")
    assert load_entry("part") is None
    assert not list(tmp_path.iterdir())


def test_an_entry_is_found_by_all_its_parts_alone(folder):
    keep_entry(b"content", "openvino", "1.0", 2)
    assert load_entry("openvino", "1.0", 2) == b"content"
    assert load_entry("openvino", "1.1", 2) is None
    assert load_entry("openvino", "1.0", 4) is None
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.suffix for path in folder.iterdir()] == [".entry"]


def test_another_processor_finds_nothing(folder, monkeypatch):
    keep_entry(b"content", "part")
    here = compiled_cache.read_machine()
    other = type("Other", (), {"cpu": "another", "instruction_sets": (), "system": here.system})
    monkeypatch.setattr(compiled_cache, "read_machine", other)
    assert load_entry("part") is None


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 100])
def test_a_damaged_entry_is_not_used(folder, damage):
    keep_entry(b"content", "part")
    entries(folder)[0].write_bytes(damage)
    assert load_entry("part") is None


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_can_write_to_is_refused(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    for use in (lambda: load_entry("part"), lambda: keep_entry(b"content", "part")):
        with pytest.raises(InputError, match="chmod 700"):
            use()
    assert not entries(folder)


def test_a_file_in_the_way_is_named(folder):
    folder.parent.joinpath("cache").write_text("a file")
    with pytest.raises((InputError, SinkError), match="cache"):
        keep_entry(b"content", "part")


def test_a_kept_network_computes_the_same(folder, network):
    images = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    with open_backend(network, backend="openvino", threads=1) as first:
        expected = first.infer(images).copy()
    (kept,) = entries(folder)
    before = kept.stat().st_mtime_ns
    with open_backend(network, backend="openvino", threads=1) as second:
        np.testing.assert_array_equal(second.infer(images), expected)
    assert kept.stat().st_mtime_ns == before
    assert entries(folder) == [kept]
    with open_backend(network, backend="openvino", threads=2):
        assert len(entries(folder)) == 2


def test_what_the_library_cannot_load_is_compiled_anew(folder, network, caplog):
    with open_backend(network, backend="openvino", threads=1):
        (kept,) = entries(folder)
    whole = kept.read_bytes()
    rubbish = b"no network"
    kept.write_bytes(hashlib.sha256(rubbish).digest() + rubbish)
    with open_backend(network, backend="openvino", threads=1) as opened:
        assert opened.infer(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 3, 8, 8)
    assert "compiling anew" in caplog.text
    assert len(kept.read_bytes()) == len(whole)


def test_another_model_of_the_same_name_is_compiled_anew(folder, tmp_path):
    for height in (32, 64):
        path = write_brightest_band(
            tmp_path / "same.onnx", brightest_band_spec(tile_hw=(height, 32))
        )
        with open_backend(path, backend="openvino", threads=1) as opened:
            images = np.zeros((1, 3, height, 32), np.float32)
            assert opened.infer(images).shape == (1, 3, height // 4, 8)
    assert len(entries(folder)) == 2


def test_the_fastest_backend_is_measured_once(folder, network, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(choose, "_remembered", {})
    with open_backend(network, threads=1) as first:
        chosen = first.name
    monkeypatch.setattr(choose, "_remembered", {})
    monkeypatch.setattr(choose, "_open_fastest", lambda *_, **__: pytest.fail("measured again"))
    with open_backend(network, threads=1) as second:
        assert second.name == chosen
