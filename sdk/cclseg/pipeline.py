"""A job: every frame of a source through a segmenter into a sink.

The stages of the stream and the writing have threads of their own, with short queues between them,
so that while the network computes one frame the next is decoded and the last is written. A frame
that cannot be read, segmented or written by itself is noted, and the job goes on; when nothing more
can be written, or the network fails, the job ends with that error.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import CclsegError, InputError
from .handover import Background
from .profiling import StageTimer

if TYPE_CHECKING:
    from .result import Segmentation
    from .segmenter import Segmenter
    from .sinks import Sink
    from .sources import Source
    from .stream import Policy, StreamStats

_log = logging.getLogger(__name__)

# Enough to even out frames that take longer, few enough to keep memory flat.
_FRAMES_BETWEEN_STAGES = 2

LISTED_FAILURES = 1000
"""Failed frames that a summary names; a camera may run for days."""


@dataclass(frozen=True, slots=True)
class FrameFailure:
    """A frame that has no result.

    Attributes:
        name: Name of the frame or file.
        reason: Why, and what to do.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobSummary:
    """How a job went.

    Attributes:
        done: Number of frames whose result was written.
        failed: The frames that have none, in the order in which they failed; the first 1000.
        failed_count: Number of all frames that have none.
        dropped: Frames and results that a policy for live sources gave up.
        stopped: It was asked to stop before the source had ended.
        wall_s: Time from the first frame asked for to the last one written, in seconds.
        age_ms: Percentiles of the time between a frame's capture and its result; None without one.
        stage_ms: Mean milliseconds per frame of each stage; stages of different threads overlap.
        class_fractions: Share of each class, as the mean over the frames.
        levels: Frames by the level of work that a budget gave them.
    """

    done: int
    failed: tuple[FrameFailure, ...]
    wall_s: float
    failed_count: int = 0
    dropped: int = 0
    stopped: bool = False
    age_ms: dict[str, float] | None = None
    stage_ms: dict[str, float] = field(default_factory=dict)
    class_fractions: dict[str, float] = field(default_factory=dict)
    levels: dict[str, int] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames written per second."""
        return self.done / self.wall_s if self.wall_s > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns the summary as JSON-ready values."""
        return asdict(self) | {"fps": self.fps}


class StopRequest:
    """Asks a running job to end in good order; a signal handler may call it.

    Example:
        >>> stop = StopRequest()
        >>> signal.signal(signal.SIGTERM, lambda *_: stop())  # doctest: +SKIP
        >>> run_job(source, segmenter, sink, stop=stop)  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self.asked = False
        self._stop: Callable[[], None] | None = None

    def __call__(self) -> None:
        """Lets the job take no more frames; what is on its way is written."""
        self.asked = True
        if self._stop is not None:
            self._stop()

    def passes_on_to(self, stop: Callable[[], None]) -> None:
        """Names what ends the job, and calls it if the request came before."""
        self._stop = stop
        if self.asked:
            stop()


def run_job(
    source: Source,
    segmenter: Segmenter,
    sink: Sink,
    *,
    policy: Policy | None = None,
    progress: Callable[[int], None] | None = None,
    stop: StopRequest | None = None,
) -> JobSummary:
    """Segments all frames of a source and writes the results.

    The sink is finished when all frames are through or the job was asked to stop, and aborted by
    any exception, an interrupt included. Source and segmenter stay open.

    Args:
        source: Where frames come from.
        segmenter: The network.
        sink: Where results go.
        policy: What happens to frames that come too fast; see :meth:`Segmenter.stream`.
        progress: Called after each frame, done or failed, with the number of frames so far.
        stop: Ends the job early and in good order when it is called.

    Returns:
        What was done, and which frames failed.

    Raises:
        SourceError: The source as a whole cannot be read.
        SinkError: Nothing can be written any more.
        BackendError: The network failed.
    """
    job = _Job(sink, progress or (lambda _: None))
    stop = stop or StopRequest()
    start_ns = time.perf_counter_ns()
    with (
        sink,
        Background(job.write, waiting=_FRAMES_BETWEEN_STAGES) as writer,
        segmenter.stream(source, policy=policy, on_error=job.fail) as results,
    ):
        stop.passes_on_to(results.stop)
        for result in results:
            writer.put(result)
    wall_s = (time.perf_counter_ns() - start_ns) / 1e9
    return job.summary(wall_s, results.stats(), stopped=stop.asked)


class _Job:
    """What the threads of one job share; the lock guards what any of them may report."""

    def __init__(self, sink: Sink, progress: Callable[[int], None]) -> None:
        self._sink = sink
        self._progress = progress
        self._times = StageTimer()
        self._outcome_lock = threading.Lock()
        self._failures: list[FrameFailure] = []
        self._failed = 0
        self._shares: dict[str, float] = {}
        self._done = 0

    def write(self, result: Segmentation) -> None:
        """Writes one result."""
        assert result.frame is not None
        for stage, elapsed_ms in result.timing.items():
            self._times.add(stage, elapsed_ms)
        try:
            with self._times.stage("write"):
                self._sink.write(result.frame, result)
        except InputError as error:
            self.fail(result.frame.name, error)
            return
        for name, share in result.fractions().items():
            self._shares[name] = self._shares.get(name, 0.0) + share
        with self._outcome_lock:
            self._done += 1
            self._progress(self._done + self._failed)

    def fail(self, name: str, error: CclsegError) -> None:
        """Notes a frame without result."""
        _log.info("no result for %s: %s", name, error)
        with self._outcome_lock:
            self._failed += 1
            if len(self._failures) < LISTED_FAILURES:
                self._failures.append(FrameFailure(name, str(error)))
            self._progress(self._done + self._failed)

    def summary(self, wall_s: float, stats: StreamStats, *, stopped: bool) -> JobSummary:
        """Returns how the job went; all threads have ended."""
        frames = max(1, self._done)
        return JobSummary(
            done=self._done,
            failed=tuple(self._failures),
            failed_count=self._failed,
            dropped=stats.dropped + stats.superseded,
            stopped=stopped,
            wall_s=wall_s,
            age_ms=stats.age_ms,
            stage_ms={stage: total_ms / frames for stage, total_ms in self._times.ms.items()},
            class_fractions={name: total / frames for name, total in self._shares.items()},
            levels=stats.levels,
        )
