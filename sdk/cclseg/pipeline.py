"""A job: every frame of a source through a segmenter into a sink.

Decoding, inference and writing each have a thread, with short queues between them, so that while
the network computes one frame the next is decoded and the last is written. A frame that cannot be
read, segmented or written by itself is noted, and the job goes on; when nothing more can be
written, or the network fails, the job ends with that error.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import CclsegError, InputError
from .handover import Background, prefetched
from .profiling import StageTimer

if TYPE_CHECKING:
    from .frame import Frame
    from .result import Segmentation
    from .segmenter import Segmenter
    from .sinks import Sink
    from .sources import Source

_log = logging.getLogger(__name__)

# Enough to even out frames that take longer, few enough to keep memory flat.
_FRAMES_BETWEEN_STAGES = 2


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
        failed: The frames that have none, in the order in which they failed.
        wall_s: Time from the first frame asked for to the last one written, in seconds.
        stage_ms: Mean milliseconds per frame of each stage; stages of different threads overlap.
        class_fractions: Share of each class, as the mean over the frames.
    """

    done: int
    failed: tuple[FrameFailure, ...]
    wall_s: float
    stage_ms: dict[str, float] = field(default_factory=dict)
    class_fractions: dict[str, float] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames written per second."""
        return self.done / self.wall_s if self.wall_s > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns the summary as JSON-ready values."""
        return asdict(self) | {"fps": self.fps}


def run_job(
    source: Source,
    segmenter: Segmenter,
    sink: Sink,
    *,
    progress: Callable[[int], None] | None = None,
) -> JobSummary:
    """Segments all frames of a source and writes the results.

    The sink is finished when all frames are through, and aborted by any exception, an interrupt
    included. Source and segmenter stay open.

    Args:
        source: Where frames come from.
        segmenter: The network; used by the calling thread alone.
        sink: Where results go.
        progress: Called after each frame, done or failed, with the number of frames so far.

    Returns:
        What was done, and which frames failed.

    Raises:
        SourceError: The source as a whole cannot be read.
        SinkError: Nothing can be written any more.
        BackendError: The network failed.
    """
    job = _Job(source, segmenter, sink, progress or (lambda _: None))
    start_ns = time.perf_counter_ns()
    with (
        sink,
        Background(job.write, waiting=_FRAMES_BETWEEN_STAGES) as writer,
        closing(prefetched(job.decoded(), ahead=_FRAMES_BETWEEN_STAGES)) as frames,
    ):
        for frame in frames:
            result = job.segmented(frame)
            if result is not None:
                writer.put((frame, result))
    return job.summary((time.perf_counter_ns() - start_ns) / 1e9)


class _Job:
    """What the threads of one job share.

    Each stage has attributes of its own; the lock guards what any of them may report.
    """

    def __init__(
        self, source: Source, segmenter: Segmenter, sink: Sink, progress: Callable[[int], None]
    ) -> None:
        self._source = source
        self._segmenter = segmenter
        self._sink = sink
        self._progress = progress
        self._reading, self._writing = StageTimer(), StageTimer()
        self._computing_ms: dict[str, float] = {}
        self._outcome_lock = threading.Lock()
        self._failures: list[FrameFailure] = []
        self._shares: dict[str, float] = {}
        self._done = 0

    def decoded(self) -> Iterator[Frame]:
        """Yields the frames that can be read, timed."""
        frames = iter(self._source.frames(on_error=self._fail))
        while True:
            with self._reading.stage("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def segmented(self, frame: Frame) -> Segmentation | None:
        """Segments a frame; None if it does not fit the network."""
        try:
            result = self._segmenter(frame.image)
        except InputError as error:
            self._fail(frame.path.name if frame.path else frame.name, error)
            return None
        for stage, elapsed_ms in result.timing.items():
            self._computing_ms[stage] = self._computing_ms.get(stage, 0.0) + elapsed_ms
        return result

    def write(self, item: tuple[Frame, Segmentation]) -> None:
        """Writes one result."""
        frame, result = item
        try:
            with self._writing.stage("write"):
                self._sink.write(frame, result)
        except InputError as error:
            self._fail(frame.name, error)
            return
        for name, share in result.fractions().items():
            self._shares[name] = self._shares.get(name, 0.0) + share
        with self._outcome_lock:
            self._done += 1
            self._progress(self._done + len(self._failures))

    def _fail(self, name: str, error: CclsegError) -> None:
        _log.info("no result for %s: %s", name, error)
        with self._outcome_lock:
            self._failures.append(FrameFailure(name, str(error)))
            self._progress(self._done + len(self._failures))

    def summary(self, wall_s: float) -> JobSummary:
        """Returns how the job went; all threads have ended."""
        totals_ms = self._reading.ms | self._computing_ms | self._writing.ms
        frames = max(1, self._done)
        return JobSummary(
            done=self._done,
            failed=tuple(self._failures),
            wall_s=wall_s,
            stage_ms={stage: total_ms / frames for stage, total_ms in totals_ms.items()},
            class_fractions={name: total / frames for name, total in self._shares.items()},
        )
