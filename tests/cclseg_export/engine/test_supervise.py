"""How a building process ends, and what is said of it."""

from __future__ import annotations

import sys

import pytest

from cclseg_export.engine.job import BuildRefusedError, Job
from cclseg_export.engine.supervise import Outcome, build_in_process

JOB = Job(
    library="tensorrt",
    model="model.onnx",
    operators=("Conv",),
    engine="model.engine",
    shapes={"images": ((1, 3, 8, 8), (1, 3, 8, 8), (2, 3, 8, 8))},
)
READ = "import json, os, signal, sys; job = json.loads(sys.stdin.read());"


def run(script, progress=None):
    return build_in_process(JOB, progress=progress, command=(sys.executable, "-c", script))


def refusal(script):
    with pytest.raises(BuildRefusedError) as caught:
        run(script)
    return caught.value.kind, caught.value.detail


def test_a_job_arrives_as_it_was_sent():
    tell = "print(json.dumps({'event': 'failed', 'kind': 'refused', 'detail': json.dumps(job)}))"
    _, detail = refusal(READ + tell)
    arrived = Job.from_json(detail)
    assert Job.from_json(arrived.to_json()) == arrived
    assert [list(map(tuple, shapes)) for shapes in arrived.shapes.values()] == [
        list(shapes) for shapes in JOB.shapes.values()
    ]


def test_progress_warnings_and_the_end_are_heard():
    seen = []
    outcome = run(
        READ
        + """
for share in (0.25, 0.5):
    print(json.dumps({"event": "progress", "share": share, "phase": "timing"}), flush=True)
for _ in range(2):
    print(json.dumps({"event": "warning", "text": "slow"}), flush=True)
print(json.dumps({"event": "done", "library_version": "10.3.0", "source_sha256": "ab",
                  "calls_plugin": True}))
""",
        progress=lambda share, phase: seen.append((share, phase)),
    )
    assert seen == [(0.25, "timing"), (0.5, "timing")]
    assert outcome == Outcome("10.3.0", "ab", True, ("slow",))


def test_a_killed_process_ran_out_of_memory():
    kind, detail = refusal(READ + "os.kill(os.getpid(), signal.SIGKILL)")
    assert (kind, detail) == ("memory", "the building process was killed")


def test_a_crash_is_told_with_its_last_words():
    kind, detail = refusal(
        READ + "sys.stderr.write('bad tactic\\n'); sys.stderr.flush(); os.abort()"
    )
    assert kind == "refused"
    assert detail == "the building process ended with signal 6: bad tactic"


def test_a_process_that_says_nothing_is_no_success():
    assert refusal(READ + "sys.exit(0)")[0] == "refused"


def test_a_process_that_never_reads_its_job_is_told():
    assert refusal("import os; os.close(0); os._exit(3)")[1].startswith(
        "the building process ended with status 3"
    )


def test_much_noise_on_standard_error_does_not_block():
    done = "print(json.dumps({'event': 'failed', 'kind': 'parse', 'detail': 'after the noise'}))"
    noise = "sys.stderr.write('x' * 10_000_000);"
    assert refusal(READ + noise + done) == ("parse", "after the noise")
