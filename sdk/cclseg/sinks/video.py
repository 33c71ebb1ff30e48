"""Overlay video, written by OpenCV."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, MissingDependencyError, SinkError
from ..files import make_folder
from .base import Sink, check_not_input

if TYPE_CHECKING:
    from ..frame import Frame, Image
    from ..result import Segmentation

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="writing videos") from error

VIDEO_SUFFIX = ".mp4"
_DEFAULT_FPS = 10.0

# The one codec that the packaged OpenCV writes everywhere; H.264 needs a system build of it.
_CODEC = "mp4v"


class VideoSink(Sink):
    """An ``.mp4`` of the frames with their classes laid over them.

    The size is that of the first frame. The video grows under a temporary name; at the end it is
    opened and its frames are counted, because the encoder does not say when the disk is full.

    Example:
        >>> with VideoSink(Path("flight_overlay.mp4"), fps=25) as sink:  # doctest: +SKIP
        ...     sink.write(out.frame, out)
    """

    def __init__(self, path: Path, *, fps: float | None) -> None:
        make_folder(path.parent)
        self.target = path
        self._fps = fps or _DEFAULT_FPS
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        self._frames = 0

    def write(self, frame: Frame, result: Segmentation) -> None:
        """Appends one frame.

        Raises:
            InputError: The frame has another size than the first one.
            SinkError: The disk is full or the video cannot be written.
        """
        picture = result.overlay(frame.image)
        size_wh = (picture.shape[1], picture.shape[0])
        if self._writer is None:
            check_not_input(self.target, frame)
            self._open(size_wh)
        if size_wh != self._size_wh:
            raise InputError(
                f"frame '{frame.name}' is {size_wh[0]} x {size_wh[1]}, the video "
                f"{self._size_wh[0]} x {self._size_wh[1]}; write frames of different sizes into a "
                "folder"
            )
        self._append(picture)

    def _open(self, size_wh: tuple[int, int]) -> None:
        self._writer = cv2.VideoWriter(
            str(self._temporary), cv2.VideoWriter.fourcc(*_CODEC), self._fps, size_wh
        )
        self._size_wh = size_wh
        if not self._writer.isOpened():
            self.abort()
            raise SinkError(
                f"cannot write {self.target}: OpenCV opens no '{_CODEC}' encoder for it; check "
                "the folder, or write into a folder of images"
            )

    def _append(self, picture: Image) -> None:
        assert self._writer is not None
        if shutil.disk_usage(self._temporary.parent).free < picture.nbytes:
            self.abort()
            raise SinkError(
                f"cannot write {self.target}: the disk is full; free space or choose another place"
            )
        self._writer.write(picture)
        self._frames += 1

    def finish(self) -> None:
        """Completes the video and gives it its final name.

        Raises:
            SinkError: The file does not hold the frames that went in.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        found = _frames_in(self._temporary)
        if found != self._frames:
            self.abort()
            raise SinkError(
                f"cannot write {self.target}: {found} of {self._frames} frames arrived in the "
                "file; free space or choose another place"
            )
        try:
            with self._temporary.open("rb") as file:
                os.fsync(file.fileno())
            self._temporary.replace(self.target)
        except OSError as error:
            self.abort()
            raise SinkError(f"cannot write {self.target}: {error.strerror}") from error

    def abort(self) -> None:
        """Removes the unfinished video."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        self._temporary.unlink(missing_ok=True)


def _frames_in(path: Path) -> int:
    """Returns the number of frames that a video file announces; 0 if it does not open."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
