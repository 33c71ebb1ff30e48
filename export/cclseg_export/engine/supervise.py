"""Starts the building process, listens to it, and says in plain words how it ended."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from .job import BuildRefusedError

if TYPE_CHECKING:
    from .job import Job

OnProgress = Callable[[float, str], None]

WORKER = (sys.executable, "-m", "cclseg_export.engine.worker")

_LAST_WORDS = 400
_RTX_LIBRARY = "libtensorrt_rtx.so"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a build left behind besides its engine.

    Attributes:
        library_version: Version of the library that built it.
        source_sha256: Hash of the file that was read.
        calls_plugin: Whether the network holds an operator of a plugin.
        warnings: What the library warned of, each once.
    """

    library_version: str
    source_sha256: str
    calls_plugin: bool
    warnings: tuple[str, ...]


def build_in_process(
    job: Job, *, progress: OnProgress | None = None, command: Sequence[str] = WORKER
) -> Outcome:
    """Builds an engine in a process of its own and waits for it.

    When the wait is interrupted, the process is ended first.

    Args:
        job: What to build.
        progress: Called with the share that is done and what is done now.
        command: The building process.

    Raises:
        BuildRefusedError: It failed; a process that was killed counts as one out of memory.
    """
    with TemporaryDirectory(prefix="cclseg-build-") as folder, TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(job, Path(folder)),
            text=True,
            start_new_session=True,  # Ctrl-C is for us, who end it then
        )
        with process:
            try:
                outcome = _told_and_heard(process, job, progress)
                code = process.wait()
            finally:
                process.kill()
        if outcome is None:
            raise _ended_without_answer(code, errors)
        return outcome


def _told_and_heard(
    process: subprocess.Popen[str], job: Job, progress: OnProgress | None
) -> Outcome | None:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(job.to_json())
        process.stdin.close()
    except BrokenPipeError:  # it ended before it read the job
        return None
    return _listen(process.stdout, progress)


def _listen(lines: IO[str], progress: OnProgress | None) -> Outcome | None:
    """Follows the events to the last one; None when there was none."""
    warnings: dict[str, None] = {}
    outcome = None
    for line in lines:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "progress" and progress is not None:
            progress(event["share"], event["phase"])
        elif event["event"] == "warning":
            warnings[event["text"]] = None
        elif event["event"] == "failed":
            raise BuildRefusedError(event["kind"], event["detail"])
        elif event["event"] == "done":
            outcome = Outcome(
                library_version=event["library_version"],
                source_sha256=event["source_sha256"],
                calls_plugin=event["calls_plugin"],
                warnings=tuple(warnings),
            )
    return outcome


def _ended_without_answer(code: int, errors: IO[bytes]) -> BuildRefusedError:
    errors.seek(0)
    words = " ".join(errors.read().decode(errors="replace").split())[-_LAST_WORDS:]
    if code == -signal.SIGKILL:  # what the kernel does when memory runs out
        return BuildRefusedError("memory", "the building process was killed")
    how = f"signal {-code}" if code < 0 else f"status {code}"
    return BuildRefusedError("refused", f"the building process ended with {how}: {words}")


def _environment(job: Job, folder: Path) -> Mapping[str, str]:
    """Returns the variables of the process.

    The parser of TensorRT for RTX 1.7 opens ``libtensorrt_rtx.so`` by name, the wheel holds only
    ``.so.1``, and the parser then ends the process. A link that the loader finds helps it.
    """
    variables = dict(os.environ)
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    if job.library != "tensorrt-rtx" or spec is None or not spec.submodule_search_locations:
        return variables
    libraries = Path(spec.submodule_search_locations[0])
    if not (libraries / _RTX_LIBRARY).exists():
        (folder / _RTX_LIBRARY).symlink_to(libraries / f"{_RTX_LIBRARY}.1")
    before = variables.get("LD_LIBRARY_PATH")
    paths = [str(folder), str(libraries), *([before] if before else [])]
    return variables | {"LD_LIBRARY_PATH": ":".join(paths)}
