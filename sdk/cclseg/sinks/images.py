"""Masks and overlays as image files: a folder with one per frame, or a single file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import InputError
from ..files import make_folder, write_bytes
from ..image_files import IMAGE_SUFFIXES, encode_image
from ..photo_tags import PhotoTags, find_tags, with_tags
from .base import Sink, check_not_input

if TYPE_CHECKING:
    from ..frame import Frame
    from ..result import Segmentation

_log = logging.getLogger(__name__)

Kind = Literal["masks", "overlay"]

_SUFFIXES: dict[Kind, str] = {"masks": ".png", "overlay": ".jpg"}


class FolderSink(Sink):
    """One file per frame in a folder, named after the frame: ``.png`` masks, ``.jpg`` overlays.

    The EXIF and XMP of a photo go with it, so that its results are found on the map too.

    Example:
        >>> with open_sink("masks") as sink:  # doctest: +SKIP
        ...     for out in segmenter.stream("flight_07"):
        ...         sink.write(out.frame, out)
    """

    target: Path

    def __init__(self, folder: Path, *, kind: Kind) -> None:
        self.target = make_folder(folder)
        self._kind: Kind = kind

    def write(self, frame: Frame, result: Segmentation) -> None:
        """Writes the frame's file."""
        _write(self.target / (frame.name + _SUFFIXES[self._kind]), self._kind, frame, result)


class FileSink(Sink):
    """One image file, for a source of one frame."""

    target: Path

    def __init__(self, path: Path, *, kind: Kind) -> None:
        make_folder(path.parent)
        self.target = path
        self._kind: Kind = kind
        self._written_from: str | None = None

    def write(self, frame: Frame, result: Segmentation) -> None:
        """Writes the file.

        Raises:
            InputError: It has been written before.
        """
        if self._written_from is not None:
            raise InputError(
                f"{self.target} holds one frame and already has '{self._written_from}'; give a "
                "folder or an .mp4 for several frames"
            )
        _write(self.target, self._kind, frame, result)
        self._written_from = frame.name


def _write(path: Path, kind: Kind, frame: Frame, result: Segmentation) -> None:
    check_not_input(path, frame)
    picture = result.mask if kind == "masks" else result.overlay(frame.image)
    encoded = encode_image(picture, path.suffix)
    # Class ids are not turned by any reader, so that they fit the pixels as they are stored.
    write_bytes(path, with_tags(encoded, _tags_of(frame), keep_orientation=kind == "overlay"))


def _tags_of(frame: Frame) -> PhotoTags:
    """Returns the tags of the photo that a frame came from, if it did and the photo is there."""
    if frame.path is None or frame.path.suffix.lower() not in IMAGE_SUFFIXES:
        return PhotoTags()
    try:
        with frame.path.open("rb") as file:
            return find_tags(file)
    except OSError as error:
        _log.warning("the result of %s goes without its tags: %s", frame.path, error.strerror)
        return PhotoTags()
