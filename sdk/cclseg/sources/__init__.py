"""Sources: where frames come from."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..errors import InputError, SourceError
from ..suggest import did_you_mean
from .base import OnFrameError, Source

if TYPE_CHECKING:
    from ..frame import Image
    from .live import OnEvent, Patience

__all__ = ["SCHEMES", "OnFrameError", "Source", "SourceLike", "open_source"]

SourceLike: TypeAlias = "str | Path | Source | Iterable[Image]"
"""What names or is a source."""


def _open_virtual(text: str) -> Source:
    from .virtual import VirtualSource

    return VirtualSource.from_text(text)


def _open_in_real_time(text: str) -> Source:
    from .paced import RealTimeSource

    return RealTimeSource(open_source(text.partition(":")[2]))


SCHEMES: dict[str, Callable[[str], Source]] = {
    "virtual": _open_virtual,
    "realtime": _open_in_real_time,
}
"""What opens a source written as ``scheme:rest``, by scheme; it gets the whole text."""


def open_source(
    source: SourceLike, *, on_event: OnEvent | None = None, patience: Patience | None = None
) -> Source:
    """Opens frames by what the text names.

    Args:
        source: An image, a folder of images, a pattern such as ``flight/*.jpg``, a video file, or
            ``virtual:seed=7,frames=100,size=1280x720`` for a virtual flight; ``realtime:`` and a
            video or virtual flight; a camera or stream by ``rtsp:``, ``rtp:``, ``udp:``,
            ``v4l2:``, ``csi:`` or ``gst:`` (:func:`cclseg.sources.gst_pipelines.pipeline_for` has
            their forms and options); an iterable of images; or a source already open, which is
            returned as it is.
        on_event: Hears what happens to a camera or stream: that it is live, stalled, lost,
            restored.
        patience: How long to wait for a camera or stream, and how often to try; None for what
            suits cameras in a network.

    Returns:
        A context manager that yields :class:`~cclseg.frame.Frame`.

    Raises:
        InputError: It is neither a text nor several images.
        SourceError: There is nothing of that name, or it is neither image nor video.

    Example:
        >>> with open_source("flight_07/*.jpg") as source:  # doctest: +SKIP
        ...     for frame in source:
        ...         print(frame.name)
    """
    if isinstance(source, Source):
        return source
    if not isinstance(source, (str, Path)):
        return _open_images(source)
    text = str(source)
    scheme = re.match(r"([a-z][a-z0-9]+):", text)
    if scheme and scheme[1] in SCHEMES:
        return SCHEMES[scheme[1]](text)
    if scheme and not os.path.exists(text):  # noqa: PTH110 - Path refuses long pipelines
        return _open_live(text, scheme[1], on_event, patience)
    return _open_path(Path(source), text)


def _open_live(
    text: str, scheme: str, on_event: OnEvent | None, patience: Patience | None
) -> Source:
    from .gst_pipelines import LIVE_SCHEMES, pipeline_for
    from .gst_process import GstProcess
    from .live import LiveSource

    if scheme not in LIVE_SCHEMES:
        raise SourceError(
            f"{text}: nothing opens '{scheme}:'; {did_you_mean(scheme, {*SCHEMES, *LIVE_SCHEMES})}"
        )
    pipeline = pipeline_for(text)
    return LiveSource(
        lambda: GstProcess(pipeline.words, pipeline.ranks),
        name=pipeline.name,
        ends=pipeline.ends,
        patience=patience,
        on_event=on_event,
    )


def _open_images(images: Iterable[Image]) -> Source:
    from .arrays import ArraySource

    if not isinstance(images, Iterable) or getattr(images, "ndim", 4) != 4:
        shape = getattr(images, "shape", None)
        found = type(images).__name__ if shape is None else f"an array of {shape}"
        raise InputError(
            f"the source is {found}; expected a path, a text or an iterable of (H, W, C) images "
            "(a single image goes to the segmenter itself)"
        )
    return ArraySource(images)


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
