"""Overlay video."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, MissingDependencyError, SinkError
from ..files import make_folder
from .base import Sink, check_not_input
from .encoders import Encoder, check_codec, open_encoder
from .pictures import even, fitted

if TYPE_CHECKING:
    from ..frame import Frame, Image
    from ..result import Segmentation
    from . import Codec

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="writing videos") from error

_log = logging.getLogger(__name__)

VIDEO_SUFFIX = ".mp4"
_DEFAULT_FPS = 10.0


class VideoSink(Sink):
    """An ``.mp4`` of the frames with their classes laid over them.

    The size is that of the first frame, made even by one more row or column where it is not. A
    camera may change its size: its later frames are fitted in, between black borders. In H.264
    every frame is shown at its own time, so a camera whose frames come unevenly, or are left out,
    is seen at its true speed. The video grows under a temporary name; at the end it is opened and
    its frames are counted, because encoders do not say when the disk is full.

    Example:
        >>> with VideoSink(Path("flight_overlay.mp4"), fps=25) as sink:  # doctest: +SKIP
        ...     sink.write(out.frame, out)
    """

    target: Path

    def __init__(self, path: Path, *, fps: float | None, codec: Codec = "auto") -> None:
        check_codec(codec)
        make_folder(path.parent)
        self.target = path
        self._fps = fps or _DEFAULT_FPS
        self._codec: Codec = codec
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
        self._open: Encoder | None = None
        self._size_hw = (0, 0)
        self._frames = 0
        self._first_s: float | None = None
        self._time_s = 0.0

    def write(self, frame: Frame, result: Segmentation) -> None:
        """Appends one frame.

        Raises:
            InputError: The frame is a still image of another size than the first one.
            SinkError: The disk is full or the video cannot be written.
        """
        if self._open is None:
            check_not_input(self.target, frame)
            self._open = self._opened(frame)
        picture = result.overlay(frame.image)
        if frame.size_hw != self._size_hw and frame.timestamp_s is not None:
            picture = fitted(picture, self._size_hw)
        elif frame.size_hw != self._size_hw:
            (height, width), (video_height, video_width) = frame.size_hw, self._size_hw
            raise InputError(
                f"frame '{frame.name}' is {width} x {height}, the video {video_width} x "
                f"{video_height}; write frames of different sizes into a folder"
            )
        self._append(self._open, even(picture), self._shown_s(frame))

    def _opened(self, frame: Frame) -> Encoder:
        self._size_hw = height, width = frame.size_hw
        even_hw = (height + height % 2, width + width % 2)
        try:
            encoder = open_encoder(self._temporary, even_hw, fps=self._fps, codec=self._codec)
        except OSError as error:
            self.abort()
            if isinstance(error, SinkError):
                raise
            raise SinkError(f"cannot write {self.target}: {error.strerror}") from error
        self.encoder = encoder.name
        _log.info("%s is encoded as %s", self.target.name, encoder.name)
        return encoder

    def _shown_s(self, frame: Frame) -> float:
        """Returns when a frame is shown: at its own time, if that is after the one before."""
        if not self._frames:
            self._first_s = frame.timestamp_s
            return 0.0
        if frame.timestamp_s is not None and self._first_s is not None:
            own_s = frame.timestamp_s - self._first_s
            if own_s > self._time_s:
                return own_s
        return self._time_s + 1 / self._fps

    def _append(self, encoder: Encoder, picture: Image, time_s: float) -> None:
        if shutil.disk_usage(self._temporary.parent).free < picture.nbytes:
            self.abort()
            raise SinkError(
                f"cannot write {self.target}: the disk is full; free space or choose another place"
            )
        try:
            encoder.append(picture, time_s)
        except SinkError as error:
            self.abort()
            raise self._cannot_write(str(error)) from error
        self._frames += 1
        self._time_s = time_s

    def finish(self) -> None:
        """Completes the video and gives it its final name.

        Raises:
            SinkError: The file does not hold the frames that went in.
        """
        if self._open is None:
            return
        try:
            self._open.close()
            self._open = None
            found = _frames_in(self._temporary)
            if found != self._frames:
                raise self._cannot_write(f"{found} of {self._frames} frames arrived in the file")
            with self._temporary.open("rb") as file:
                os.fsync(file.fileno())
            self._temporary.replace(self.target)
        except OSError as error:
            self.abort()
            if isinstance(error, SinkError):
                raise
            raise self._cannot_write(str(error.strerror)) from error

    def _cannot_write(self, reason: str) -> SinkError:
        return SinkError(
            f"cannot write {self.target}: {reason}; free space or choose another place"
        )

    def abort(self) -> None:
        """Removes the unfinished video."""
        if self._open is not None:
            self._open.abort()
            self._open = None
        self._temporary.unlink(missing_ok=True)


def _frames_in(path: Path) -> int:
    """Returns the number of frames that a video file announces; 0 if it does not open."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
