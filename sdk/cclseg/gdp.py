"""Frames through a pipe, from GStreamer's element ``gdppay`` and to its element ``gdpdepay``.

The GStreamer Data Protocol, version 1.0: every packet has a header of 62 bytes (big-endian), then
a payload: the pixels of a frame, or text that says what the next frames are (size and format,
written again whenever they change). So a pipe carries time stamps and changes of size, and this
process needs no GStreamer of its own.
"""

from __future__ import annotations

import os
import re
import select
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from .errors import SourceError

if TYPE_CHECKING:
    from .frame import Image

_HEADER = struct.Struct(">BBBBHIQQQQH18s")
_BUFFER, _CAPS, _STREAM_START, _SEGMENT = 1, 2, 10318, 17998
_NO_TIME = (1 << 64) - 1
# Times count from zero, at normal speed, without an end.
_TIME_LINE = (
    "segment, flags=(GstSegmentFlags)GST_SEGMENT_FLAG_NONE, rate=(double)1, "
    "applied-rate=(double)1, format=(GstFormat)time, base=(guint64)0, offset=(guint64)0, "
    "start=(guint64)0, stop=(guint64)18446744073709551615, time=(guint64)0, "
    "position=(guint64)0, duration=(guint64)18446744073709551615;"
)
_NO_DTS = b"\xff" * 8 + bytes(10)
_TEXT_LIMIT = 1 << 16
_PIXELS_LIMIT = 1 << 28


@dataclass(frozen=True, slots=True)
class RawFrame:
    """An image as it came out of the pipe.

    Attributes:
        image: (H, W, 3) uint8 BGR; owned by the receiver.
        time_ns: When it was captured by the clock of the pipeline; None where that is unknown.
    """

    image: Image
    time_ns: int | None


class GdpReader:
    """Reads frames from a pipe, without ever waiting longer than it is told.

    Args:
        descriptor: The reading end of the pipe; stays the caller's.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._size_hw = (0, 0)
        self._header = np.empty(_HEADER.size, np.uint8)
        self._expect_header()

    def read(self, timeout_s: float) -> RawFrame | None:
        """Returns the next frame, or None where none is complete yet.

        What has arrived of a frame is kept for the next call.

        Args:
            timeout_s: How long to wait whenever nothing arrives.

        Raises:
            EOFError: The other side has closed the pipe.
            SourceError: What arrives are no such packets.
        """
        while self._poll.poll(timeout_s * 1000):
            count = os.readv(self._descriptor, [self._target.data[self._filled :]])
            if not count:
                raise EOFError
            self._filled += count
            if self._filled == len(self._target):
                frame = self._next_part()
                if frame is not None:
                    return frame
        return None

    def _expect_header(self) -> None:
        self._target, self._filled = self._header, 0
        self._packet: tuple[int, int] | None = None

    def _next_part(self) -> RawFrame | None:
        """Goes on from a complete header to its payload, or from a payload to the next header."""
        if self._packet is None:
            self._begin_payload()
            if len(self._target):
                return None
        assert self._packet is not None
        kind, time_ns = self._packet
        payload = self._target
        self._expect_header()
        if kind == _CAPS:
            self._size_hw = _frame_size(payload.tobytes())
        if kind != _BUFFER:
            return None
        return RawFrame(self._as_image(payload), None if time_ns == _NO_TIME else time_ns)

    def _begin_payload(self) -> None:
        major, minor, _, _, kind, length, time_ns, *_ = _HEADER.unpack(self._header.tobytes())
        limit = 3 * _PIXELS_LIMIT if kind == _BUFFER else _TEXT_LIMIT
        if (major, minor) != (1, 0) or length > limit:
            raise SourceError(
                f"a packet of version {major}.{minor} and {length} bytes came out of the pipeline; "
                "expected gdppay's version 1.0: let nothing else write into its pipe"
            )
        self._packet = kind, time_ns
        self._target, self._filled = np.empty(length, np.uint8), 0

    def _as_image(self, pixels: Image) -> Image:
        """Cuts off the bytes that fill up each row to a multiple of four."""
        height, width = self._size_hw
        row_bytes = _row_bytes(width)
        if not height or len(pixels) != height * row_bytes:
            raise SourceError(
                f"a frame of {len(pixels)} bytes came out of the pipeline, its size said to be "
                f"{width} x {height}; expected whole rows of BGR"
            )
        rows = pixels.reshape(height, row_bytes)
        return np.ascontiguousarray(rows[:, : 3 * width]).reshape(height, width, 3)


def packed_start(size_hw: tuple[int, int], *, fps: float) -> bytes:
    """Returns the packets that begin a stream: its name, its form, its time line.

    Args:
        size_hw: Size of the frames.
        fps: Their usual rate; each one may come at another time.
    """
    height, width = size_hw
    rate = Fraction(fps).limit_denominator(1001)
    return b"".join(
        _packed(kind, text.encode() + b"\0")
        for kind, text in (
            (_STREAM_START, "GstEventStreamStart, stream-id=(string)cclseg;"),
            (
                _CAPS,
                f"video/x-raw, format=(string)BGR, width=(int){width}, height=(int){height}, "
                f"framerate=(fraction){rate.numerator}/{rate.denominator}, "
                "pixel-aspect-ratio=(fraction)1/1",
            ),
            (_SEGMENT, f'GstEventSegment, segment=(GstSegment)"{_TIME_LINE}";'),
        )
    )


def packed_frame(image: Image, time_ns: int) -> bytes:
    """Returns the packet of a frame.

    Args:
        image: (H, W, 3) uint8 BGR.
        time_ns: When it is to be shown.
    """
    height, width = image.shape[:2]
    rows = image.reshape(height, 3 * width)
    filled = np.pad(rows, ((0, 0), (0, _row_bytes(width) - 3 * width)))
    return _packed(_BUFFER, filled.tobytes(), time_ns)


def _packed(kind: int, payload: bytes, time_ns: int = 0) -> bytes:
    unknown = (_NO_TIME, _NO_TIME, _NO_TIME)
    header = _HEADER.pack(1, 0, 0, 0, kind, len(payload), time_ns, *unknown, 0, _NO_DTS)
    return header + payload


def _frame_size(caps: bytes) -> tuple[int, int]:
    """Reads height and width from text such as ``video/x-raw, format=(string)BGR, ...``."""
    text = caps.decode(errors="replace")
    found = {name: re.search(rf"\b{name}=\(int\)(\d+)", text) for name in ("height", "width")}
    height, width = (int(match[1]) if match else 0 for match in found.values())
    is_bgr = re.search(r"\bformat=\(string\)BGR\b", text)  # in any place, and not BGRx
    if not is_bgr or not 0 < height * width <= _PIXELS_LIMIT:
        raise SourceError(f"the pipeline gives {text.rstrip(chr(0))}; expected BGR of a fixed size")
    return height, width


def _row_bytes(width: int) -> int:
    """Returns the length of a row in memory: GStreamer fills it up to a multiple of four."""
    return (3 * width + 3) // 4 * 4
