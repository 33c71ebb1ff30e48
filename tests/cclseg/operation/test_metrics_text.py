"""Metrics, read back by the parser of the Prometheus client."""

import re
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families

from cclseg.operation.health import About, ClassShare, Health, StreamHealth
from cclseg.operation.metrics_text import CONTENT_TYPE, Metrics

PAGE = Path(__file__).parents[3] / "docs" / "operation.md"

STREAMS = (
    StreamHealth(
        'left "1"\n', "live", captured=100, delivered=80, dropped=15, superseded=3, failed=2,
        fps=12.5, age_ms={"p50": 40.0, "p90": 55.0, "p99": 90.0}, last_result_s=0.25,
        classes=(ClassShare("road", "#000000", 0.75), ClassShare("water", "#0000ff", 0.25)),
    ),
    StreamHealth("right", "lost", "no route", restarts=4),
)  # fmt: skip
HEALTH = Health(
    state="lost", reason="right: no route", about=About("a", "ccl", "openvino", "int8", "cpu"),
    streams=STREAMS, events=(), version="1.2", pid=7, started_s=0.0, uptime_s=1.0,
    temperature_c={"cpu-thermal": 61.5}, throttled=True,
)  # fmt: skip


def samples(health=HEALTH):
    text = Metrics(lambda: health).text().decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_figure_is_a_metric():
    found, left = samples(), ("stream", 'left "1"\n')
    assert found["cclseg_frames_captured_total", left] == 100
    assert found["cclseg_results_delivered_total", left] == 80
    assert found["cclseg_frames_dropped_total", left] == 15
    assert found["cclseg_results_superseded_total", left] == 3
    assert found["cclseg_frames_failed_total", left] == 2
    assert found["cclseg_source_restarts_total", ("stream", "right")] == 4
    assert found["cclseg_results_per_second", left] == 12.5
    assert found["cclseg_last_result_age_seconds", left] == 0.25
    assert found["cclseg_result_age_seconds", ("quantile", "0.99"), left] == 0.09
    assert found["cclseg_class_share", ("class", "road"), left] == 0.75
    assert found["cclseg_temperature_celsius", ("sensor", "cpu-thermal")] == 61.5
    assert found["cclseg_throttled",] == 1
    assert found["cclseg_healthy",] == 0
    (info,) = (name for name in found if name[0] == "cclseg_info")
    assert dict(info[1:])["backend"] == "openvino"


def test_a_stream_is_in_one_state():
    states = {
        labels: value for (name, *labels), value in
        ((key, value) for key, value in samples().items()) if name == "cclseg_stream_state"
        for labels in [tuple(labels)]
    }  # fmt: skip
    assert [labels for labels, value in states.items() if value] == [
        (("state", "live"), ("stream", 'left "1"\n')),
        (("state", "lost"), ("stream", "right")),
    ]


def test_what_is_not_known_is_left_out():
    found = samples(Health("starting", "", About(), (), (), "1", 1, 0.0, 0.0))
    assert ("cclseg_throttled",) not in found
    assert not [name for name in found if name[0] == "cclseg_last_result_age_seconds"]


def test_the_process_is_measured_and_nothing_else_of_the_program():
    found = {name[0] for name in samples()}
    assert "process_resident_memory_bytes" in found
    assert not [name for name in found if not name.startswith(("cclseg_", "process_"))]


def test_two_of_them_do_not_disturb_each_other():
    assert Metrics(lambda: HEALTH).text()
    assert Metrics(lambda: HEALTH).text()
    assert CONTENT_TYPE.startswith("text/plain")


def test_every_metric_is_documented_and_no_other():
    documented = set(re.findall(r"`(cclseg_\w+)`", PAGE.read_text()))
    assert documented == {name[0] for name in samples() if name[0].startswith("cclseg_")}
