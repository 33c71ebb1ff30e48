"""Still images: one file, a folder, or the files that a pattern names."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, SourceError
from ..frame import Frame, Image
from ..image_files import IMAGE_SUFFIXES, RASTER_SUFFIXES, read_image
from ..placement import Placement, read_placement
from .base import OnFrameError, Source

_log = logging.getLogger(__name__)


class ImageFilesSource(Source):
    """Image files, one frame each, in the given order.

    A file that cannot be read does not end the source where ``on_error`` is given. Position,
    camera and time come from EXIF and XMP; where these are damaged the frame goes without them,
    and the first such file is logged.

    Example:
        >>> with open_source("flight_07") as source:  # doctest: +SKIP
        ...     for frame in source:
        ...         print(frame.name, frame.size_hw)
    """

    def __init__(self, paths: Sequence[Path], *, name: str) -> None:
        self.name = name
        self.total = len(paths)
        self._paths = tuple(paths)
        self._names = _distinct_names(self._paths)
        self._told_of_damage = False

    @classmethod
    def from_folder(cls, folder: Path) -> ImageFilesSource:
        """Takes the images that lie directly in a folder, numbers in names counted as numbers.

        Raises:
            SourceError: The folder holds no images or cannot be read.
        """
        try:
            entries = list(folder.iterdir())
        except OSError as error:
            raise SourceError(
                f"cannot read {folder}: {error.strerror}; check its rights"
            ) from error
        paths = [path for path in entries if _is_image(path)]
        if not paths:
            raise SourceError(
                f"{folder} holds no images ({len(entries)} other entries); expected files ending "
                f"in {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        return cls(sorted(paths, key=_natural_order), name=folder.resolve().name)

    @classmethod
    def from_pattern(cls, pattern: str, paths: Sequence[Path]) -> ImageFilesSource:
        """Takes the images among the files that a pattern names.

        Raises:
            SourceError: There are none.
        """
        images = [path for path in paths if _is_image(path)]
        if not images:
            raise SourceError(
                f"no images match {pattern} ({len(paths)} other files do); quote the pattern and "
                "check the path"
            )
        return cls(sorted(images, key=_natural_order), name=Path(pattern).parent.name or "images")

    def frames(self, *, on_error: OnFrameError | None = None) -> Iterator[Frame]:
        """Yields one frame per file; see :meth:`Source.frames`."""
        for index, (path, name) in enumerate(zip(self._paths, self._names, strict=True)):
            try:
                image = read_frame(path)
            except InputError as error:
                if on_error is None:
                    raise
                on_error(path.name, error)
                continue
            placement = self._placement(path, image)
            yield Frame(
                image=image,
                index=index,
                name=name,
                path=path,
                pose=placement.pose,
                camera=placement.camera,
                captured_at=placement.captured_at,
            )

    def _placement(self, path: Path, image: Image) -> Placement:
        placement = read_placement(path, (image.shape[0], image.shape[1]))
        if placement.damage:
            level = logging.DEBUG if self._told_of_damage else logging.WARNING
            _log.log(level, "%s: %s", path, "; ".join(placement.damage))
            self._told_of_damage = True
        return placement


def read_frame(path: Path) -> Image:
    """Reads an image as a frame: three bands in OpenCV order, other numbers as they are stored."""
    image = read_image(path)
    if path.suffix.lower() in RASTER_SUFFIXES and image.shape[2] == 3:
        return np.ascontiguousarray(image[:, :, ::-1])
    return image


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and path.name[0] != "."


def _natural_order(path: Path) -> tuple[str, list[tuple[int, str]]]:
    """Sorts DJI_9.jpg before DJI_10.jpg."""
    parts = re.split(r"(\d+)", path.name)
    return str(path.parent), [
        (int(part), "") if part.isdecimal() else (-1, part) for part in parts if part
    ]


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Returns the files' stems; those that occur twice get the folder and the ending added."""
    stems = Counter(path.stem for path in paths)
    names = []
    taken: Counter[str] = Counter()
    for path in paths:
        name = path.stem
        if stems[name] > 1:
            name = f"{path.parent.name}_{path.stem}_{path.suffix[1:]}".lstrip("_")
        taken[name] += 1
        names.append(name if taken[name] == 1 else f"{name}_{taken[name]}")
    return names
