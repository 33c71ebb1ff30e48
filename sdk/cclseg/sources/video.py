"""Video files, decoded by OpenCV."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import MissingDependencyError, SourceError
from ..frame import Frame
from .base import OnFrameError, Source

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra("cv2", extra="cpu", purpose="reading videos") from error

_log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".ts", ".webm"}
)

# Some containers estimate their number of frames, and edit lists hide some; neither is damage.
_TOLERATED_SHORTFALL = 1


class VideoSource(Source):
    """The frames of a video file, in order, none left out.

    A file that ends before the number of frames it announces (a copy that was cut off, a camera
    that lost power) gives the whole frames up to there; then the loss is reported like a frame
    that cannot be read. The last frame before a cut is usually half a picture, which decoders fill
    up without a word, so it is left out.

    Example:
        >>> with VideoSource(Path("flight.mp4")) as video:  # doctest: +SKIP
        ...     print(video.fps, video.total)
    """

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._path = path
        self._capture: cv2.VideoCapture | None = self._opened()
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if 0 < fps < 1000 else None
        self.total = count if count > 0 else None

    def frames(self, *, on_error: OnFrameError | None = None) -> Iterator[Frame]:
        """Yields the frames from the first one on; see :meth:`Source.frames`."""
        capture = self._capture or self._opened()
        self._capture = None  # a second iteration starts over
        try:
            index, frame = -1, None
            while (image := capture.read()[1]) is not None:
                if frame is not None:
                    yield frame
                index += 1
                frame = Frame(
                    image=np.asarray(image, np.uint8),
                    index=index,
                    name=f"frame_{index:06d}",
                    timestamp_s=float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000,
                    path=self._path,
                )
        finally:
            capture.release()
        shortfall = (self.total or 0) - (index + 1)
        if shortfall > _TOLERATED_SHORTFALL:
            self._report_loss(max(index, 0), on_error)
        elif frame is not None:
            yield frame

    def _report_loss(self, whole_frames: int, on_error: OnFrameError | None) -> None:
        error = SourceError(
            f"{self._path} ends after {whole_frames} whole frames of {self.total}: the file is cut "
            "off or damaged; copy it again, or go on with the frames before"
        )
        if on_error is None:
            raise error
        on_error(f"frame_{whole_frames:06d}", error)

    def _opened(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise SourceError(
                f"{self._path} cannot be decoded as a video: it is damaged, cut off before its "
                "index, or of another kind; try to play or to repair it"
            )
        return capture

    def close(self) -> None:
        """Closes the file. May be called twice."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
