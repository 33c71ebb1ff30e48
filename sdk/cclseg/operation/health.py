"""Health: what a running stream says of itself, and what others conclude from it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError

State = Literal["starting", "live", "stalled", "lost", "stopping", "ended", "failed"]
"""How a stream is. "starting": no result yet. "live": results come. "stalled": they should come and
do not. "lost": a camera is gone and is tried again. "stopping": it was asked to end. "ended": it
is through. "failed": it ended with an error, or only a new process can help."""

HEALTHY: frozenset[State] = frozenset({"starting", "live"})

FORMAT = 1
"""Version of the health file; readers refuse later ones."""

_WORST_LAST: tuple[State, ...] = (
    "ended", "live", "starting", "stopping", "stalled", "lost", "failed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class About:
    """What a stream runs.

    Attributes:
        source: Short name of the source, without passwords.
        model: Name of the model.
        backend: Library that runs it.
        precision: Its precision.
        device: Where it runs.
    """

    source: str = ""
    model: str = ""
    backend: str = ""
    precision: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True)
class ClassShare:
    """A class and how much of the newest result it takes.

    Attributes:
        name: Name of the class.
        colour: "#rrggbb".
        share: In 0..1.
    """

    name: str
    colour: str
    share: float


@dataclass(frozen=True, slots=True)
class StreamHealth:
    """How one source and its results are.

    Attributes:
        name: Name of the stream; empty where it is the only one.
        state: How it is.
        reason: Why, where it is not live.
        captured: Frames that the source gave.
        delivered: Results handed out.
        dropped: Frames given up by the policy before they were computed.
        superseded: Results given up for newer ones.
        failed: Frames that could not be read or did not fit the network.
        restarts: How often the watchdog restarted the source.
        fps: Results per second lately.
        age_ms: Percentiles of the age of results when they were handed out; None before the first.
        last_result_s: Seconds since the last result; None before the first.
        classes: Share of each class in the newest result.
    """

    name: str
    state: State
    reason: str = ""
    captured: int = 0
    delivered: int = 0
    dropped: int = 0
    superseded: int = 0
    failed: int = 0
    restarts: int = 0
    fps: float = 0.0
    age_ms: dict[str, float] | None = None
    last_result_s: float | None = None
    classes: tuple[ClassShare, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        time_s: When, in seconds since 1970.
        stream: Name of the stream, or of the source where the stream has none.
        state: What it was then.
        detail: What happened, in words; may be empty.
    """

    time_s: float
    stream: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """How everything is at one moment.

    Attributes:
        state: The worst state of all streams.
        reason: Why, where it is not well.
        about: What runs.
        streams: Each stream.
        events: What happened lately, the newest last.
        version: Version of cclseg.
        pid: Number of the process.
        started_s: When it was started, in seconds since 1970.
        uptime_s: Seconds since then.
        temperature_c: Degrees Celsius of each sensor that the machine has.
        throttled: Whether the machine slows itself down; None where it does not say.
    """

    state: State
    reason: str
    about: About
    streams: tuple[StreamHealth, ...]
    events: tuple[Event, ...]
    version: str
    pid: int
    started_s: float
    uptime_s: float
    temperature_c: dict[str, float] = field(default_factory=dict)
    throttled: bool | None = None

    @property
    def healthy(self) -> bool:
        """Whether all is well."""
        return self.state in HEALTHY

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON-ready values."""
        return {"format": FORMAT, "healthy": self.healthy} | asdict(self)


def worst(streams: tuple[StreamHealth, ...]) -> tuple[State, str]:
    """Returns the worst state of several streams, and why it is that."""
    one = max(streams, key=lambda stream: _WORST_LAST.index(stream.state))
    label = f"{one.name}: " if one.name and one.reason else ""
    return one.state, f"{label}{one.reason}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reader concludes from a health file.

    Attributes:
        healthy: All was well, and the file is fresh.
        text: In one line.
    """

    healthy: bool
    text: str


def read_health(path: Path) -> dict[str, Any]:
    """Reads a health file.

    Raises:
        InputError: There is none, or it is no health file of this version.
    """
    try:
        content = json.loads(path.read_bytes())
        known = content["format"] == FORMAT
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; is 'cclseg predict --health {path}' running?"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no health file of 'cclseg predict --health'") from error
    if not known:
        raise InputError(
            f"{path} has the format {content['format']}, this version reads {FORMAT}; "
            "use the version of cclseg that wrote it"
        )
    return dict(content)


def judge(content: dict[str, Any], *, longest_s: float | None = None) -> Verdict:
    """Says whether all is well by a health file.

    Its age is told by the time since the machine was booted, which no GPS or network sets.

    Args:
        content: What :func:`read_health` gave.
        longest_s: Age from which on the file is stale; None for what it says itself.

    Raises:
        InputError: Figures that a health file has are missing.
    """
    try:
        written = content["written"]
        limit_s = written["stale_after_s"] if longest_s is None else longest_s
        age_s = now_since_boot_s() - written["since_boot_s"]
        before_boot = written["boot"] != boot_id() or age_s < 0
        state, reason, streams = content["state"], content["reason"], content["streams"]
        fps = sum(stream["fps"] for stream in streams)
        healthy = content["healthy"]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"the health file is incomplete: {error}; expected all figures of it"
        ) from error
    if before_boot:
        return Verdict(False, "stale: written before this machine was last started")
    if age_s > limit_s:
        return Verdict(
            False,
            f"stale: written {age_s:.0f} s ago, expected every {limit_s:.0f} s; it was {state}",
        )
    return Verdict(healthy, in_words(state, reason, fps))


def in_words(state: State, reason: str, fps: float) -> str:
    """Says in one line how it is."""
    if reason:
        return f"{state}: {reason}"
    return f"{state}, {fps:.1f} results/s" if state in HEALTHY else state


def now_since_boot_s() -> float:
    """Returns the seconds since the machine was booted, the time that it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Returns what tells this boot of the machine from others; empty where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
