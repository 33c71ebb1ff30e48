"""Sources: where frames come from."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import SourceError
from ..suggest import did_you_mean
from .base import OnFrameError, Source

__all__ = ["SCHEMES", "OnFrameError", "Source", "open_source"]

_LATER_SCHEMES = frozenset({"rtsp", "rtsps", "http", "https", "v4l2", "csi", "gst", "udp"})


def _open_virtual(text: str) -> Source:
    from .virtual import VirtualSource

    return VirtualSource.from_text(text)


SCHEMES: dict[str, Callable[[str], Source]] = {"virtual": _open_virtual}
"""What opens a source written as ``scheme:rest``, by scheme; it gets the whole text."""


def open_source(source: str | Path) -> Source:
    """Opens frames by what the text names.

    Args:
        source: An image, a folder of images, a pattern such as ``flight/*.jpg``, a video file, or
            ``virtual:seed=7,frames=100,size=1280x720`` for a virtual flight.

    Returns:
        A context manager that yields :class:`~cclseg.frame.Frame`.

    Raises:
        SourceError: There is nothing of that name, or it is neither image nor video.

    Example:
        >>> with open_source("flight_07/*.jpg") as source:  # doctest: +SKIP
        ...     for frame in source:
        ...         print(frame.name)
    """
    text = str(source)
    scheme = re.match(r"([a-z][a-z0-9]+):", text)
    if scheme and scheme[1] in SCHEMES:
        return SCHEMES[scheme[1]](text)
    if scheme and scheme[1] in _LATER_SCHEMES:
        raise SourceError(
            f"{text}: cameras and streams are not read by this version; expected an image, a "
            "folder, a pattern, a video file or virtual:"
        )
    return _open_path(Path(source), text)


def _open_path(path: Path, text: str) -> Source:
    from ..image_files import IMAGE_SUFFIXES
    from .images import ImageFilesSource
    from .video import VIDEO_SUFFIXES, VideoSource

    if path.is_dir():
        return ImageFilesSource.from_folder(path)
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageFilesSource([path], name=path.stem)
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(path)
    if path.is_file():
        raise SourceError(
            f"{path} is neither an image nor a video by its ending; expected one of "
            f"{', '.join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))}"
        )
    if glob.has_magic(text):
        matches = glob.glob(text, recursive=True)  # noqa: PTH207 - Path.glob takes no "/a/*"
        return ImageFilesSource.from_pattern(text, [Path(match) for match in matches])
    raise SourceError(f"{path}: no such file or folder{_near_names(path)}")


def _near_names(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent} either)"
    hint = did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])
    return f"; {hint}" if hint.startswith("did") else "; check the path"
