"""The stages of a stream, each in threads of its own, and the queues between them.

    capture (one thread per source) ─► prepare ─► infer ─► finish ─► the caller

Prepare cuts frames into tiles and packs them as the network takes them: tiles of several frames go
into one call where these wait already, never by waiting for them. Where all of this is done on a
GPU, one stage takes whole frames instead of the three. Every queue is bounded. The end of a source,
or the error that ended it, travels behind its last frame.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from .errors import CclsegError, InputError
from .handover import Channel, Lane, Lanes
from .packing import Computed, End, Group, Job, Packer, Places, logits_buffer
from .tiled import Assembly, TileCutter

if TYPE_CHECKING:
    from .frame import FloatArray, Frame
    from .levels import LevelChooser
    from .packing import Level, Network
    from .refinement import Refiner
    from .result import Segmentation
    from .sources import OnFrameError, Source
    from .temporal import TemporalSmoother

_log = logging.getLogger(__name__)

_LEAVE_SOURCE_AFTER_S = 5.0

# One set of logits is computed while the last is blended; a third waits for a slow moment to end.
_LOGITS_BUFFERS = 3


@dataclass(frozen=True, slots=True)
class Feed:
    """A source with what happens when its frames come faster than they are computed.

    Attributes:
        name: Tells the feeds of one stream apart.
        source: Where frames come from; stays open.
        waiting: What the queue of its captured frames does.
        results: What the queue of its results does.
        just_in_time: Take a frame only when the network is free for it.
        chooser: Says at which level each frame is computed.
        smoother: Blends each result with the one before, None for no such thing.
        refiner: Sharpens each result, None for no such thing.
        on_error: Hears of frames without result; None ends the stream with the error.
    """

    name: str
    source: Source
    waiting: Lane
    results: Lane
    just_in_time: bool
    chooser: LevelChooser
    smoother: TemporalSmoother | None = None
    refiner: Refiner | None = None
    on_error: OnFrameError | None = None


@dataclass(frozen=True, slots=True)
class _Captured:
    feed: int
    frame: Frame
    decode_ms: float | None


@dataclass(frozen=True, slots=True)
class _Started:
    """A call of the network on its way, and where its logits will stand."""

    places: Places
    logits: FloatArray
    wait: Callable[[], None]
    start_ns: int


_Result: TypeAlias = "Segmentation | End"


class Stages:
    """Runs feeds through a network, or through several at the levels that their choosers say.

    Results and ends are taken from :attr:`results`; an end with a failure ends everything. The
    caller closes the stages in any case.

    Attributes:
        results: What comes out, one lane per feed.
        captured: Frames captured so far, by feed.
        failed: Frames without a result so far, by feed.
        asked_s: When each source was asked for the frame that it owes, by ``time.monotonic``; None
            while it owes none.
        ended: Whether each source has come to its end.
        stopping: No more frames are captured.
    """

    def __init__(self, feeds: Sequence[Feed], levels: Sequence[Level]) -> None:
        self._feeds = tuple(feeds)
        self._levels = tuple(levels)
        self.stopping = False
        self.captured = [0] * len(self._feeds)
        self.failed = [0] * len(self._feeds)
        self.asked_s: list[float | None] = [None] * len(self._feeds)
        self.ended = [False] * len(self._feeds)
        self._waiting = Lanes[_Captured | End]([feed.waiting for feed in self._feeds])
        self._packer = Packer((level.network for level in levels), feeds=len(self._feeds))
        self._computed = Channel[Computed](_LOGITS_BUFFERS)
        self._rooms: dict[Network, Channel[FloatArray]] = {}
        for network in {level.network for level in levels}:
            self._rooms[network] = Channel(_LOGITS_BUFFERS)
            for _ in range(_LOGITS_BUFFERS):
                self._rooms[network].put(logits_buffer(network.spec, network.tiles_per_call))
        self.results = Lanes[_Result]([feed.results for feed in self._feeds])
        self._permits = Channel[None](_frames_ahead(self._feeds, self._levels))
        self._threads: list[threading.Thread] = []
        self._capturing: list[threading.Thread] = []

    @property
    def frames_dropped(self) -> list[int]:
        """Frames given up before they were computed, by feed."""
        return self._waiting.dropped

    def start(self) -> None:
        """Starts the threads."""
        for _ in range(_frames_ahead(self._feeds, self._levels)):
            self._permits.put(None)
        by_tiles, by_frames = (self._prepare, self._infer, self._finish), (self._run_frames,)
        for stage in by_tiles if self._levels[0].network.submit_frame is None else by_frames:
            self._threads.append(self._thread(stage))
        for index in range(len(self._feeds)):
            self._capturing.append(self._thread(self._capture, index))
        for thread in (*self._threads, *self._capturing):
            thread.start()

    def stop(self) -> None:
        """Captures no more frames; those on their way still come out. Any thread may call it."""
        self.stopping = True
        for feed in self._feeds:
            feed.source.interrupt()

    def close(self) -> None:
        """Ends all threads, whatever is on its way. May be called twice."""
        self.stopping = True
        if self._capturing:
            self.stop()
        self._waiting.close()
        self._packer.close()
        self.results.close()
        self._computed.close(drop=True)
        self._permits.close(drop=True)
        for rooms in self._rooms.values():
            rooms.close(drop=True)
        for thread in self._threads:
            if thread is not threading.current_thread():  # the garbage collector runs anywhere
                thread.join()
        for thread in self._capturing:
            thread.join(_LEAVE_SOURCE_AFTER_S)
            if thread.is_alive():
                _log.warning("%s waits for a frame and cannot be ended; left behind", thread.name)
        self._threads, self._capturing = [], []

    def _thread(self, stage: Callable[..., None], *arguments: int) -> threading.Thread:
        def run() -> None:
            try:
                stage(*arguments)
            except BaseException as error:  # the caller of the stream raises it
                _log.debug("the stage %s failed", stage.__name__, exc_info=True)
                self.results.end_all(End(0, error))

        name = "-".join(["cclseg", stage.__name__.strip("_"), *map(str, arguments)])
        return threading.Thread(target=run, name=name, daemon=True)

    def _capture(self, index: int) -> None:
        feed, failure = self._feeds[index], None
        frames = iter(feed.source.frames(on_error=self._listener(index)))
        try:
            while not self.stopping:
                start_ns = time.perf_counter_ns()
                self.asked_s[index] = time.monotonic()
                frame = next(frames, None)
                self.asked_s[index] = None
                if frame is None:
                    break
                decode_ms = (time.perf_counter_ns() - start_ns) / 1e6
                self.captured[index] += 1
                # A live source is waited for, which is no work.
                item = _Captured(
                    index, _stamped(frame, feed.name), None if feed.source.live else decode_ms
                )
                if not self._waiting.put(index, item):
                    break
        except BaseException as error:  # raised where the results are taken, behind those before
            failure = error
        finally:
            self.asked_s[index], self.ended[index] = None, True
            if isinstance(frames, Generator):  # it may hold a file open
                frames.close()
        self._waiting.end(index, End(index, failure))

    def _listener(self, index: int) -> OnFrameError | None:
        """Returns what hears of a feed's lost frames, and counts them."""
        hear = self._feeds[index].on_error
        if hear is None:
            return None

        def heard(name: str, error: CclsegError) -> None:
            self.failed[index] += 1
            hear(name, error)

        return heard

    def _prepare(self) -> None:
        cutters = {
            level: TileCutter(level.network.spec, overlap=level.overlap, scale=level.scale)
            for level in self._levels
        }
        while self._has_permit() and (taken := self._next_captured()):
            item = taken[0]
            if isinstance(item, End):
                self._packer.end(item)
                self._permits.put(None)
                continue
            try:
                level = self._feeds[item.feed].chooser.level_for(item.frame.image)
                self._cut(cutters[level], item, level)
            except InputError as error:
                self._permits.put(None)
                if (end := self._refusal(item, error)) is not None:
                    self._packer.end(end)
        self._packer.groups.close()

    def _has_permit(self) -> bool:
        """Waits until a frame may go on; tiles that wait for company go ahead before."""
        if self._permits.take(wait=False):
            return True
        self._packer.flush()
        return bool(self._permits.take())

    def _next_captured(self) -> list[_Captured | End]:
        """Waits for a frame in the same way; nothing once all feeds have ended."""
        taken = self._waiting.take(wait=False)
        if not taken:
            self._packer.flush()
            taken = self._waiting.take()
        return taken

    def _cut(self, cutter: TileCutter, item: _Captured, level: Level) -> None:
        start_ns = time.perf_counter_ns()
        plan = cutter.load(item.frame.image)
        assembly = Assembly(plan, level.network.spec, frame_hw=item.frame.size_hw)
        if item.decode_ms is not None:
            assembly.timer.add("decode", item.decode_ms)
        assembly.timer.add("preprocess", (time.perf_counter_ns() - start_ns) / 1e6)
        job = Job(item.feed, item.frame, level, assembly, to_infer=len(plan.corners))
        for place, corner in enumerate(plan.corners):
            tile = self._packer.next_tile(job, place)
            if tile is None:
                return
            with assembly.timer.stage("preprocess"):
                cutter.cut(corner, tile)

    def _refusal(self, item: _Captured, error: InputError) -> End | None:
        """Reports a frame that does not fit; returns the end of its feed where nobody hears."""
        hear = self._listener(item.feed)
        if hear is None:
            return End(item.feed, error)
        hear(item.frame.path.name if item.frame.path else item.frame.name, error)
        return None

    def _infer(self) -> None:
        """Starts groups and hands their logits on in order.

        While one is computed, the next is started where it waits already and the network can.
        """
        most = min(level.network.calls_in_flight for level in self._levels)
        on_the_way: deque[_Started] = deque()
        while (taken := self._packer.groups.take(wait=not on_the_way)) or on_the_way:
            item = taken[0] if taken else None
            if isinstance(item, Group):
                rooms = self._rooms[item.network].take()
                if not rooms:  # closed
                    return
                start_ns = time.perf_counter_ns()
                wait = item.network.submit(item.tiles, rooms[0][: len(item.places)])
                on_the_way.append(_Started(item.places, rooms[0], wait, start_ns))
                self._packer.give_back(item)
            if item is None or len(on_the_way) == most:
                self._collect(on_the_way.popleft())
            if isinstance(item, End):
                while on_the_way:
                    self._collect(on_the_way.popleft())
                self._computed.put(item)
        self._computed.close()

    def _collect(self, started: _Started) -> None:
        started.wait()
        elapsed_ms = (time.perf_counter_ns() - started.start_ns) / 1e6
        for job, _ in started.places:
            job.assembly.timer.add("infer", elapsed_ms / len(started.places))
            job.to_infer -= 1
            if not job.to_infer:
                self._permits.put(None)
        self._computed.put((started.places, started.logits))

    def _finish(self) -> None:
        while taken := self._computed.take():
            if isinstance(taken[0], End):
                self.results.end(taken[0].feed, taken[0])
                continue
            places, logits = taken[0]
            for (job, place), tile_logits in zip(places, logits, strict=False):
                job.assembly.add(place, tile_logits)
                if job.assembly.complete:
                    self.results.put(job.feed, self._result(job))
            self._rooms[places[0][0].level.network].put(logits)

    def _result(self, job: Job) -> Segmentation:
        """Makes the result of a frame, in the order of its feed's frames."""
        feed = self._feeds[job.feed]
        result = job.assembly.segmentation(
            job.frame.image, smoother=feed.smoother, refiner=feed.refiner
        )
        result.frame, result.level = job.frame, job.level.name
        feed.chooser.note(job.level, result.timing)
        return result

    def _run_frames(self) -> None:
        """Starts whole frames on a GPU, and hands their results on in order."""
        network = self._levels[0].network
        assert network.submit_frame is not None
        most = min(network.calls_in_flight, _frames_ahead(self._feeds, self._levels))
        on_the_way: deque[tuple[_Captured, Callable[[], Segmentation]]] = deque()
        while (taken := self._waiting.take(wait=not on_the_way)) or on_the_way:
            item = taken[0] if taken else None
            end = item if isinstance(item, End) else None
            if isinstance(item, _Captured):
                try:
                    on_the_way.append((item, network.submit_frame(item.frame.image)))
                except InputError as error:
                    end = self._refusal(item, error)
            if item is None or len(on_the_way) == most:
                self._hand_out(*on_the_way.popleft())
            if end is not None:
                while on_the_way:
                    self._hand_out(*on_the_way.popleft())
                self.results.end(end.feed, end)

    def _hand_out(self, item: _Captured, collect: Callable[[], Segmentation]) -> None:
        result = collect()
        result.frame = item.frame
        if item.decode_ms is not None:
            result.timing["decode"] = item.decode_ms
        self.results.put(item.feed, result)


def _frames_ahead(feeds: Sequence[Feed], levels: Sequence[Level]) -> int:
    """Returns how many frames may be between their capture and the end of their inference."""
    if all(feed.just_in_time for feed in feeds):
        return len(feeds)
    return len(feeds) + 2 * max(level.network.tiles_per_call for level in levels)


def _stamped(frame: Frame, stream: str) -> Frame:
    """Returns a frame that knows its stream, and when it was captured at the latest."""
    captured_ns = time.monotonic_ns() if frame.captured_ns is None else frame.captured_ns
    return replace(frame, stream=stream, captured_ns=captured_ns)
