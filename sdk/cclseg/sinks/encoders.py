"""Encoders for video: H.264 through GStreamer where it is installed, else MPEG-4 through OpenCV."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import InputError, MissingDependencyError, SinkError
from ..gstreamer import elements_in, has_element
from .picture_pipe import PicturePipe

if TYPE_CHECKING:
    from ..frame import Image
    from . import Codec

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="writing videos") from error

# Best first. A Jetson's encoder takes frames from memory of its own. Frames that are stored in
# another order than they are shown get wrong times in mp4mux 1.22 when they come unevenly, so
# there are no such frames.
_H264: dict[str, tuple[str, ...]] = {
    "nvv4l2h264enc": (
        *("video/x-raw,format=BGRx", "!", "nvvidconv", "!"),
        *("video/x-raw(memory:NVMM),format=NV12", "!", "nvv4l2h264enc", "bitrate=8000000"),
    ),
    "x264enc": (
        *("video/x-raw,format=I420", "!", "x264enc"),
        *("speed-preset=superfast", "pass=quant", "quantizer=24", "key-int-max=60", "bframes=0"),
    ),
    "openh264enc": ("video/x-raw,format=I420", "!", "openh264enc", "bitrate=8000000"),
}
_REQUIRED = ("gdpdepay", "videoconvert", "h264parse", "mp4mux")


class Encoder(Protocol):
    """Writes pictures of one size into a video file.

    Attributes:
        name: What encodes, for people ("H.264 by x264enc").
    """

    name: str

    def append(self, picture: Image, time_s: float) -> None:
        """Appends a picture.

        Args:
            picture: (H, W, 3) uint8 BGR.
            time_s: When it is shown, later than the one before.

        Raises:
            SinkError: The encoder failed.
        """

    def close(self) -> None:
        """Completes the file. May be called twice.

        Raises:
            SinkError: It could not.
        """

    def abort(self) -> None:
        """Ends the encoder, whatever becomes of the file. May be called twice."""


def open_encoder(path: Path, size_hw: tuple[int, int], *, fps: float, codec: Codec) -> Encoder:
    """Opens an encoder.

    Args:
        path: The file, ending in .mp4.
        size_hw: Size of the pictures, even: colours are stored at half of it.
        fps: Pictures per second, for codecs that know no times.
        codec: "auto" is H.264 where this machine has an encoder for it.

    Raises:
        SinkError: The file cannot be written.
    """
    element = _h264_element() if codec != "mpeg4" else None
    if element is not None:
        return _h264_encoder(path, size_hw, fps=fps, element=element)
    return Mpeg4Encoder(path, size_hw, fps=fps)


def check_codec(codec: str) -> None:
    """Refuses a codec that this machine cannot write, before there is anything to write.

    Raises:
        InputError: It is unknown.
        SinkError: This machine has no encoder for it.
    """
    if codec not in ("auto", "h264", "mpeg4"):
        raise InputError(f"codec='{codec}'; expected 'auto', 'h264' or 'mpeg4'")
    if codec == "h264" and _h264_element() is None:
        raise SinkError(
            f"cannot encode H.264: GStreamer or its encoder ({', '.join(_H264)}) is missing; run: "
            "apt install gstreamer1.0-tools gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly, "
            "or use codec='mpeg4'"
        )


def _h264_element() -> str | None:
    """Returns GStreamer's element that encodes H.264 on this machine, if there is one."""
    if not all(has_element(name) for name in _REQUIRED):
        return None
    usable = (name for name, words in _H264.items() if all(map(has_element, elements_in(words))))
    return next(usable, None)


def _h264_encoder(path: Path, size_hw: tuple[int, int], *, fps: float, element: str) -> PicturePipe:
    # The child gets the open file, so that no part of a path is read as a pipeline.
    target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    words = (
        *("!", *_H264[element], "!", "h264parse", "!", "mp4mux", "!"),
        *("fdsink", f"fd={target}", "sync=false"),
    )
    try:
        return PicturePipe(f"H.264 by {element}", words, size_hw, fps=fps, descriptors=[target])
    finally:
        os.close(target)


class Mpeg4Encoder:
    """MPEG-4 part 2 by OpenCV: the one codec that its packages write everywhere."""

    name = "MPEG-4 by OpenCV"

    def __init__(self, path: Path, size_hw: tuple[int, int], *, fps: float) -> None:
        height, width = size_hw
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), fourcc, fps, (width, height))
        if not self._writer.isOpened():
            raise SinkError(
                f"cannot write {path.name}: OpenCV opens no 'mp4v' encoder for it; check the "
                "folder, or write into a folder of images"
            )

    def append(self, picture: Image, time_s: float) -> None:
        """Appends a picture; its time is that of its number."""
        self._writer.write(picture)

    def close(self) -> None:
        """Completes the file."""
        self._writer.release()

    def abort(self) -> None:
        """Ends the encoder."""
        self._writer.release()
