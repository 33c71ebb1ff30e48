"""A virtual flight as a source of frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import SourceError
from ..frame import Frame
from ..suggest import did_you_mean
from ..virtual import SceneStyle, VirtualFlight
from .base import OnFrameError, Source

if TYPE_CHECKING:
    from ..virtual import VirtualFrame

SCHEME = "virtual:"


def _size(text: str) -> tuple[int, int]:
    """Reads WIDTHxHEIGHT as (height, width)."""
    width, height = text.split("x")
    return int(height), int(width)


_FLIGHT_OPTIONS: dict[str, Callable[[str], Any]] = {
    "seed": int, "frames": int, "size": _size, "gsd_m": float, "speed_m_s": float,
    "interval_s": float,
}  # fmt: skip
_STYLE_OPTIONS: dict[str, Callable[[str], Any]] = {
    field.name: float if isinstance(field.default, float) else str
    for field in dataclasses.fields(SceneStyle)
}


class VirtualSource(Source):
    """The frames of a virtual flight.

    Example:
        >>> source = VirtualSource.from_text("virtual:seed=7,frames=2,size=128x96")
        >>> [frame.image.shape for frame in source]
        [(96, 128, 3), (96, 128, 3)]
    """

    def __init__(self, flight: VirtualFlight) -> None:
        self.flight = flight
        self.name = f"virtual_{flight.seed}"
        self.total = flight.frames
        self.fps = 1 / flight.interval_s

    @classmethod
    def from_text(cls, text: str) -> VirtualSource:
        """Opens what a text of the form ``virtual:name=value,name=value`` describes.

        Args:
            text: Names are seed, frames, size (WIDTHxHEIGHT), gsd_m, speed_m_s, interval_s, and
                those of :class:`~cclseg.virtual.SceneStyle`; all may be left out.

        Raises:
            SourceError: A name or value cannot be read.
            InputError: A value is out of range.
        """
        options = {"seed": 0, **_parsed(text)}
        style = {name: options.pop(name) for name in _STYLE_OPTIONS if name in options}
        if "size" in options:
            options["frame_hw"] = options.pop("size")
        return cls(VirtualFlight(**options, style=SceneStyle(**style) if style else None))

    def frames(self, *, on_error: OnFrameError | None = None) -> Iterator[Frame]:
        """Yields the frames in order; none of them can fail."""
        for frame in self.flight:
            yield as_frame(frame)


def as_frame(frame: VirtualFrame) -> Frame:
    """Drops what only a virtual camera knows."""
    return Frame(
        image=frame.image,
        index=frame.index,
        name=f"frame_{frame.index:06d}",
        timestamp_s=frame.timestamp_s,
    )


def _parsed(text: str) -> dict[str, Any]:
    readers = _FLIGHT_OPTIONS | _STYLE_OPTIONS
    options: dict[str, Any] = {}
    for part in filter(None, text.removeprefix(SCHEME).split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise SourceError(f"{text}: '{part}' has no value; expected name=value")
        if name not in readers:
            raise SourceError(f"{text}: unknown option '{name}'; {did_you_mean(name, readers)}")
        try:
            options[name] = readers[name](value)
        except ValueError as error:
            form = "WIDTHxHEIGHT" if name == "size" else "a number"
            raise SourceError(f"{text}: {name} is '{value}'; expected {form}") from error
    return options
