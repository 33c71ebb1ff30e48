"""What a reader concludes from a health file."""

import json
import time

import pytest

from cclseg.errors import InputError
from cclseg.operation.health import (
    StreamHealth,
    boot_id,
    judge,
    now_since_boot_s,
    read_health,
    worst,
)


def content(*, age_s=0.0, **changes):
    written = {"since_boot_s": now_since_boot_s() - age_s, "boot": boot_id(), "stale_after_s": 15}
    plain = {
        "format": 1, "healthy": True, "state": "live", "reason": "", "streams": [{"fps": 12.5}],
        "written": written,
    }  # fmt: skip
    return plain | changes


def test_a_fresh_file_that_says_well_is_well():
    assert judge(content()) == judge(content())
    assert judge(content()).healthy
    assert judge(content()).text == "live, 12.5 results/s"


def test_a_fresh_file_that_says_otherwise_is_not():
    verdict = judge(content(healthy=False, state="lost", reason="no route to host"))
    assert (verdict.healthy, verdict.text) == (False, "lost: no route to host")


def test_an_old_file_is_stale_whatever_it_says():
    verdict = judge(content(age_s=3600))
    assert not verdict.healthy
    assert verdict.text == "stale: written 3600 s ago, expected every 15 s; it was live"
    assert judge(content(age_s=3600), longest_s=1e6).healthy
    assert not judge(content(age_s=10), longest_s=5).healthy


def test_a_clock_that_is_set_changes_nothing(monkeypatch):
    fresh, old = content(), content(age_s=3600)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert judge(fresh).healthy
    assert not judge(old).healthy


@pytest.mark.parametrize("written", [{"boot": "another"}, {"since_boot_s": 1e12}])
def test_a_file_of_an_earlier_boot_is_stale(written):
    known = content()
    known["written"] |= written
    assert judge(known).text == "stale: written before this machine was last started"


def test_files_that_are_no_health_files_are_refused(tmp_path):
    path = tmp_path / "health.json"
    with pytest.raises(InputError, match=r"is 'cclseg predict --health .*' running\?"):
        read_health(path)
    for text in ("", "[]", "{}", '{"format"', "\0" * 100):
        path.write_text(text)
        with pytest.raises(InputError, match="is no health file"):
            read_health(path)
    path.write_text('{"format": 2}')
    with pytest.raises(InputError, match="has the format 2, this version reads 1"):
        read_health(path)
    path.write_text(json.dumps(content()))
    assert read_health(path)["state"] == "live"


@pytest.mark.parametrize("missing", ["written", "healthy", "state", "streams"])
def test_an_incomplete_file_is_refused(missing):
    known = content()
    del known[missing]
    with pytest.raises(InputError, match=f"is incomplete: '{missing}'"):
        judge(known)


def test_the_worst_stream_counts():
    streams = [
        StreamHealth("a", "live"),
        StreamHealth("b", "lost", "cut"),
        StreamHealth("c", "ended"),
    ]
    assert worst(tuple(streams)) == ("lost", "b: cut")
    assert worst((streams[0], streams[2])) == ("live", "")
    assert worst((streams[2],)) == ("ended", "")
