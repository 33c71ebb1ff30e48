"""The record of engines that were built here."""

import pytest

from cclseg.built_engines import engine_sidecar, record_built, was_built_here
from cclseg.errors import InputError


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """A state folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def engine(tmp_path):
    """An engine with a sidecar, not on record yet."""
    path = tmp_path / "net.engine"
    path.write_bytes(b"ftrt" + bytes(60))
    engine_sidecar(path).write_text('{"device": "Orin"}')
    return path


def test_an_engine_is_known_after_it_was_recorded(engine):
    assert not was_built_here(engine)
    record_built(engine)
    assert was_built_here(engine)


def test_an_engine_may_be_moved_with_its_sidecar(engine, tmp_path):
    record_built(engine)
    moved = tmp_path / "other.plan"
    engine_sidecar(engine).rename(engine_sidecar(moved))
    assert was_built_here(engine.rename(moved))


@pytest.mark.parametrize("suffix", [".engine", ".engine.json"])
def test_one_changed_byte_makes_it_unknown(engine, suffix):
    record_built(engine)
    changed = engine.with_suffix(suffix)
    data = bytearray(changed.read_bytes())
    data[7] ^= 1
    changed.write_bytes(data)
    assert not was_built_here(engine)


def test_a_sidecar_cannot_be_left_out_or_added(engine):
    record_built(engine)
    text = engine_sidecar(engine).read_text()
    engine_sidecar(engine).unlink()
    assert not was_built_here(engine)
    record_built(engine)
    assert was_built_here(engine)
    engine_sidecar(engine).write_text(text + " ")
    assert not was_built_here(engine)


def test_an_engine_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*other"):
        record_built(tmp_path / "other.engine")
