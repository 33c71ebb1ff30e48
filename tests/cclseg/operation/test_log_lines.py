"""Log records as JSON."""

import json
import logging
import sys
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from cclseg.operation.log_lines import JsonFormatter


def line_of(**record):
    line = JsonFormatter().format(logging.makeLogRecord(record))
    assert "\n" not in line
    return json.loads(line)


def test_time_level_logger_message_and_fields():
    line = line_of(
        name="cclseg.sources.live", levelno=30, levelname="WARNING", created=1.5,
        msg="%s is %s", args=("camera", "lost"), event="source", retry_s=0.5,
    )  # fmt: skip
    assert line == {
        "time": "1970-01-01T00:00:01.500Z", "level": "warning", "logger": "cclseg.sources.live",
        "message": "camera is lost", "event": "source", "retry_s": 0.5,
    }  # fmt: skip
    assert datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp() == 1.5


def test_an_error_has_its_trace():
    try:
        raise ValueError("wrong\nin two lines")
    except ValueError:
        line = line_of(msg="it failed", exc_info=sys.exc_info())
    assert line["trace"].endswith("ValueError: wrong\nin two lines")


def test_what_json_cannot_hold_is_written_as_text(tmp_path):
    assert line_of(msg="", path=tmp_path)["path"] == str(tmp_path)


@given(st.text(), st.dictionaries(st.sampled_from(["stream", "state"]), st.text()))
def test_any_text_survives(message, fields):
    line = line_of(msg="%s", args=(message,), **fields)
    assert line["message"] == message
    assert {name: line[name] for name in fields} == fields


def test_fields_cannot_stand_in_for_what_every_line_has():
    assert line_of(msg="a", time="never", level="none", logger="x")["time"] != "never"
