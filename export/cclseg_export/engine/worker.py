"""The process in which an engine is built: ``python -m cclseg_export.engine.worker``.

A process of its own, because the libraries end theirs when something goes wrong deep inside, the
kernel kills it when memory runs out, and Ctrl-C must not wait for native code. It reads a job from
standard input and writes one JSON object per line to standard output.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TextIO

from .api import NetworkBuilder
from .job import BuildRefusedError, Job

_SMALLEST_STEP = 0.002


class Reporter:
    """Writes events for the process that waits for them.

    Args:
        stream: Where lines are written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._share = -1.0
        self._phase = ""

    def tell(self, event: str, **content: object) -> None:
        """Writes one event."""
        self._stream.write(json.dumps({"event": event, **content}) + "\n")
        self._stream.flush()

    def progress(self, share: float, phase: str) -> bool:
        """Writes progress that is worth a line; False once nobody listens any more."""
        if phase != self._phase or share - self._share >= _SMALLEST_STEP:
            self._share, self._phase = share, phase
            try:
                self.tell("progress", share=share, phase=phase)
            except BrokenPipeError:
                return False
        return True


def run(job: Job, reporter: Reporter) -> None:
    """Builds one engine and writes it with the measured times.

    Raises:
        BuildRefusedError: It cannot be built.
    """
    builder = NetworkBuilder(job, warn=lambda text: reporter.tell("warning", text=text))
    if job.plugin is not None:
        builder.load_plugin(job.plugin)
    source_sha256 = builder.parse()
    builder.configure()
    if job.timing_cache is not None:
        path = Path(job.timing_cache)
        builder.use_timing_cache(path.read_bytes() if path.is_file() else b"")
    plan = builder.build(reporter.progress)
    reporter.tell("progress", share=1.0, phase="writing")  # fails when nobody waits any more
    try:
        Path(job.engine).write_bytes(plan)
        if job.timing_cache_out is not None:
            Path(job.timing_cache_out).write_bytes(builder.timing_cache())
    except OSError as error:
        raise BuildRefusedError("disk", error.strerror or str(error)) from error
    reporter.tell(
        "done",
        library_version=builder.library_version,
        source_sha256=source_sha256,
        calls_plugin=builder.calls_plugin,
    )


def main() -> None:
    """Runs the job on standard input; what libraries print goes to standard error.

    When the process that waits is killed, nothing is written and this one ends, too.
    """
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    reporter = Reporter(stream)
    try:
        try:
            run(Job.from_json(sys.stdin.read()), reporter)
        except BuildRefusedError as error:
            reporter.tell("failed", kind=error.kind, detail=error.detail)
        except MemoryError as error:
            reporter.tell("failed", kind="memory", detail=str(error) or "no memory is left")
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
