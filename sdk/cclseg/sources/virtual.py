"""A virtual flight as a source of frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..frame import Frame
from ..stream_texts import number, read_options, size, whole
from ..virtual import SceneStyle, VirtualFlight
from .base import OnFrameError, Source

if TYPE_CHECKING:
    from ..virtual import VirtualFrame

SCHEME = "virtual:"


_FLIGHT_OPTIONS: dict[str, Callable[[str], Any]] = {
    "seed": whole, "frames": whole, "size": size, "gsd_m": number, "speed_m_s": number,
    "interval_s": number,
}  # fmt: skip
_STYLE_OPTIONS: dict[str, Callable[[str], Any]] = {
    field.name: number if isinstance(field.default, float) else str
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
        options = {
            "seed": 0,
            **read_options(text, text.removeprefix(SCHEME), _FLIGHT_OPTIONS | _STYLE_OPTIONS),
        }
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
