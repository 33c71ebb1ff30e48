"""Streams: results as they come, with what was left out counted."""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from .closing import Closing
from .errors import InputError
from .handover import Lane
from .levels import LevelChooser, Regime, full_level
from .packing import End, Network
from .stages import Feed, Stages
from .suggest import did_you_mean

if TYPE_CHECKING:
    from .result import Segmentation
    from .sources import OnFrameError, Source

Policy = Literal["all", "latest", "drop-oldest"]
"""What happens to frames that come faster than they are computed.

"all": the source waits, and no frame is left out. "latest": the newest frame is computed as soon as
the network is free, and the newest result handed out; others are given up. "drop-oldest": a short
queue absorbs bursts, and gives up its oldest frame when it is full; every result is handed out.
"""

_QUEUES: dict[Policy, tuple[Lane, Lane]] = {
    "all": (Lane(2), Lane(2)),
    "latest": (Lane(1, drops=True), Lane(1, drops=True)),
    "drop-oldest": (Lane(8, drops=True), Lane(2)),
}
"""For each policy, the queue of captured frames and that of results."""

_REMEMBERED_AGES = 10_000


@dataclass(frozen=True, slots=True)
class StreamStats:
    """How a stream is doing.

    Attributes:
        captured: Frames that the source gave.
        delivered: Results handed out.
        dropped: Frames given up by the policy before they were computed.
        superseded: Results given up for newer ones, because nobody took them.
        failed: Frames that could not be read or did not fit the network.
        age_ms: The 50th, 90th and 99th percentile of the age of the last 10,000 results when they
            were handed out; None before the first one.
        levels: Results handed out by the level that they were computed at.
    """

    captured: int
    delivered: int
    dropped: int
    superseded: int
    failed: int
    age_ms: dict[str, float] | None
    levels: dict[str, int] = field(default_factory=dict)


class Stream(Closing):
    """An iterator over results; closing it, or leaving its with statement, ends its threads.

    Not to be shared between threads, except for :meth:`stop`, :meth:`stats` and the rest that only
    tells how it is.

    Attributes:
        sources: What it reads, by name.
        spec: What the model says of itself.

    Example:
        >>> with segmenter.stream("rtsp://10.0.0.7/live") as stream:  # doctest: +SKIP
        ...     for out in stream:
        ...         steer(out.mask, out.age_ms)
        >>> stream.stats().dropped  # doctest: +SKIP
        212
    """

    def __init__(
        self,
        network: Network,
        sources: Mapping[str, Source],
        *,
        policy: Policy | None = None,
        on_error: OnFrameError | None = None,
        to_close: Sequence[Source] = (),
        regime: Regime | None = None,
    ) -> None:
        self.sources = dict(sources)
        self.spec = network.spec
        self._names = tuple(sources)
        regime = regime or Regime((full_level(network),))
        feeds = [_feed(name, source, policy, on_error, regime) for name, source in sources.items()]
        self._stages = Stages(feeds, regime.levels)
        self._delivered: list[Counter[str]] = [Counter() for _ in sources]
        self._ages_ms: list[deque[float]] = [deque(maxlen=_REMEMBERED_AGES) for _ in sources]
        self._counting = threading.Lock()  # statistics may be asked for by other threads
        self._listeners: list[Callable[[Segmentation], object]] = []
        self._started = False
        # Also runs when the last reference is gone, and before the interpreter ends.
        self._close = weakref.finalize(self, _close, self._stages, tuple(to_close))

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Segmentation:
        """Waits for the next result.

        Raises:
            StopIteration: All sources have ended, or the stream was stopped or closed.
            InputError: A frame cannot be read or does not fit, and nobody hears of such frames.
            SourceError: A source cannot be read any further.
            BackendError: The network failed.
        """
        if not self._started and self._close.alive:
            self._stages.start()
            self._started = True
        while taken := self._stages.results.take():
            if not isinstance(taken[0], End):
                return self._handed_out(taken[0])
            if taken[0].failure is not None:
                self.close()
                raise taken[0].failure
        self.close()
        raise StopIteration

    def _handed_out(self, result: Segmentation) -> Segmentation:
        assert result.frame is not None
        assert result.frame.captured_ns is not None
        result.age_ms = (time.monotonic_ns() - result.frame.captured_ns) / 1e6
        index = self._names.index(result.frame.stream)
        with self._counting:
            self._delivered[index][result.level] += 1
            self._ages_ms[index].append(result.age_ms)
        for listener in self._listeners:
            listener(result)
        return result

    def listen(self, on_result: Callable[[Segmentation], object]) -> None:
        """Lets a function see every result just before it is handed out, in the same thread.

        Args:
            on_result: It should be quick; its exceptions reach whoever asked for the result.
        """
        self._listeners.append(on_result)

    def owed_s(self, name: str) -> float | None:
        """Returns how long a source has owed a frame, in seconds; None while it owes none.

        A source that is not asked for frames, since those before wait for the network or for
        whoever takes the results, owes none.
        """
        asked_s = self._stages.asked_s[self._names.index(name)]
        return None if asked_s is None else time.monotonic() - asked_s

    def has_ended(self, name: str) -> bool:
        """Says whether a source has come to its end; its last results may still be on their way."""
        return self._stages.ended[self._names.index(name)]

    def stats(self, name: str | None = None) -> StreamStats:
        """Returns the counts so far.

        Args:
            name: One of several streams; None for all of them together.

        Raises:
            InputError: There is no stream of that name.
        """
        if name is not None and name not in self._names:
            raise InputError(f"there is no stream '{name}'; {did_you_mean(name, self._names)}")
        chosen = [i for i, own in enumerate(self._names) if name in (None, own)]
        stages = self._stages
        with self._counting:
            delivered = sum((self._delivered[i] for i in chosen), Counter[str]())
            ages_ms = [age for i in chosen for age in self._ages_ms[i]]
        return StreamStats(
            captured=sum(stages.captured[i] for i in chosen),
            delivered=sum(delivered.values()),
            dropped=sum(stages.frames_dropped[i] for i in chosen),
            superseded=sum(stages.results.dropped[i] for i in chosen),
            failed=sum(stages.failed[i] for i in chosen),
            age_ms=_percentiles(ages_ms),
            levels=dict(delivered),
        )

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop, or is closed."""
        return self._stages.stopping

    def stop(self) -> None:
        """Captures no more frames; the results on their way are still handed out.

        Any thread and any signal handler may call it.
        """
        self._stages.stop()

    def close(self) -> None:
        """Ends the threads and closes what the stream opened. May be called twice."""
        self._close()


def _feed(
    name: str,
    source: Source,
    policy: Policy | None,
    on_error: OnFrameError | None,
    regime: Regime,
) -> Feed:
    chosen: Policy = policy or ("latest" if source.live else "all")
    waiting, results = _QUEUES[chosen]
    return Feed(
        name=name,
        source=source,
        waiting=waiting,
        results=results,
        just_in_time=chosen == "latest",
        chooser=LevelChooser(regime),
        smoother=regime.smoother(),
        refiner=regime.refiner,
        on_error=on_error,
    )


def check_policy(policy: str | None) -> None:
    """Refuses what is no policy.

    Raises:
        InputError: It is none.
    """
    if policy is not None and policy not in _QUEUES:
        raise InputError(f"policy='{policy}'; {did_you_mean(policy, _QUEUES)}")


def _close(stages: Stages, sources: tuple[Source, ...]) -> None:
    stages.close()
    for source in sources:
        source.close()


def _percentiles(ages_ms: list[float]) -> dict[str, float] | None:
    if not ages_ms:
        return None
    values = np.percentile(ages_ms, (50, 90, 99))
    return {f"p{q}": float(value) for q, value in zip((50, 90, 99), values, strict=True)}
