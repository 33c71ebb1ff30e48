"""The dataset folder: images, masks, a class list and splits, checked as a whole before use.

Layout::

    images/<stem>.(jpg|png|tif ...)   any number of bands
    masks/<stem>.png                  8-bit class ids, ignore_index = no label
    heights/<stem>.tif                optional: metres above ground, not a number where unknown
    classes.json                      {"classes": [{"index", "name", "color"}], "ignore_index": 255}
    splits.json                       {"train": [stems], "val": [stems], "test": [stems]}
    groups.json                       optional: {"name": [stems]} of one place, to cross-validate

A split "unlabelled" names images without masks, from which a trainer may learn all the same.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DatasetError, InputError
from .image_files import IMAGE_SUFFIXES, RASTER_SUFFIXES, read_image, read_mask
from .suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .frame import Mask

UNLABELLED = "unlabelled"
"""Name of the split whose images have no masks."""

_CHECKING_THREADS = 4
_HIGHEST_M = 1000.0  # above ground; beyond are the marks of missing values


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image.

    Attributes:
        stem: File-name stem that image and mask share.
        image: (H, W, C), file's own type; three-band photographs are red, green, blue.
        mask: (H, W) class ids or the ignore value.
        heights: (H, W) float32 metres above ground, not a number where unknown; None without.
    """

    stem: str
    image: NDArray[Any]
    mask: Mask
    heights: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class DatasetFolder:
    """A dataset folder whose class list and splits have been read.

    Attributes:
        root: The folder.
        class_names: One name per class id.
        palette: One (red, green, blue) colour per class id.
        ignore_index: Mask value of unlabelled pixels.
        splits: Stems per split name.
        image_paths: Image file per stem.
    """

    root: Path
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int
    splits: Mapping[str, tuple[str, ...]]
    image_paths: Mapping[str, Path]

    def stems(self, split: str) -> tuple[str, ...]:
        """Returns the stems of a split.

        Raises:
            DatasetError: There is no such split, or it is empty.
        """
        if not self.splits.get(split):
            raise DatasetError(
                f"{self.root} has no images in a split '{split}' "
                f"({did_you_mean(split, self.splits)}); add it to splits.json"
            )
        return self.splits[split]

    def mask_path(self, stem: str) -> Path:
        """Returns where the mask of an image lies."""
        return self.root / "masks" / f"{stem}.png"

    def load(self, stem: str, *, with_heights: bool = False) -> Sample:
        """Reads one image with its mask into memory.

        Args:
            stem: Which one.
            with_heights: Read its heights as well, where there are any.

        Raises:
            DatasetError: A file is unreadable, the sizes differ, or an id is out of range.
        """
        image = self.load_image(stem)
        try:
            mask = read_mask(self.mask_path(stem))
        except InputError as error:
            raise DatasetError(str(error)) from error
        if image.shape[:2] != mask.shape:
            raise DatasetError(
                f"{stem}: the image is {_size(image)}, its mask {_size(mask)} pixels; "
                "they must have one size"
            )
        labelled = mask[mask != self.ignore_index]
        if labelled.size and labelled.max() >= len(self.class_names):
            raise DatasetError(
                f"{self.mask_path(stem)} holds class id {labelled.max()}; expected "
                f"0..{len(self.class_names) - 1} or {self.ignore_index}"
            )
        heights = self._heights(stem, mask.shape) if with_heights else None
        return Sample(stem, image, mask, heights)

    def load_image(self, stem: str) -> NDArray[Any]:
        """Reads one image, (H, W, C), in the order of :class:`Sample`.

        Raises:
            DatasetError: The file is unreadable.
        """
        return load_image(self.image_paths[stem])

    def _heights(self, stem: str, size_hw: tuple[int, ...]) -> NDArray[np.float32] | None:
        path = self.root / "heights" / f"{stem}.tif"
        if not path.exists():
            return None
        try:
            heights = read_image(path)
        except InputError as error:
            raise DatasetError(str(error)) from error
        if heights.shape != (*size_hw, 1):
            raise DatasetError(
                f"{path} is {heights.shape}; expected one band of the size of the image, {size_hw}"
            )
        metres = heights[:, :, 0].astype(np.float32)
        return np.where(np.abs(metres) < _HIGHEST_M, metres, np.float32("nan"))

    def check(self, splits: Sequence[str] | None = None) -> int:
        """Reads every file of the named splits and reports all that is wrong at once.

        Args:
            splits: Names of splits, None for all.

        Returns:
            The number of bands, which all images share.

        Raises:
            DatasetError: One line per offending file.
        """
        names = tuple(self.splits) if splits is None else splits
        stems = sorted({stem for name in names for stem in self.stems(name)})
        with ThreadPoolExecutor(_CHECKING_THREADS) as pool:
            findings = list(pool.map(self._bands_or_problem, stems))
        problems = [finding for finding in findings if isinstance(finding, str)]
        bands = [finding for finding in findings if isinstance(finding, int)]
        if bands:
            usual = max(set(bands), key=bands.count)
            problems += [
                f"{self.image_paths[stem]} has {found} bands; the other images have {usual}"
                for stem, found in zip(stems, findings, strict=True)
                if isinstance(found, int) and found != usual
            ]
        if problems:
            listing = "\n  ".join(problems)
            raise DatasetError(
                f"{self.root}: {len(problems)} of {len(stems)} samples cannot be used:\n"
                f"  {listing}\n"
                "repair these files or take their stems out of splits.json"
            )
        return bands[0]

    def _bands_or_problem(self, stem: str) -> int | str:
        if stem not in self.image_paths:
            return f"{self.root / 'images' / stem}.*: splits.json names it, but there is no image"
        has_mask = stem not in self.splits.get(UNLABELLED, ())
        if has_mask and not self.mask_path(stem).exists():
            return f"{self.mask_path(stem)}: missing, but there is an image {stem}"
        try:
            image = self.load(stem).image if has_mask else self.load_image(stem)
            return int(image.shape[2])
        except DatasetError as error:
            return str(error)


def open_dataset(root: Path | str) -> DatasetFolder:
    """Reads the class list and the splits of a dataset folder; no image is opened yet.

    Args:
        root: Folder in the layout of this module's docstring.

    Raises:
        DatasetError: A part of the layout is missing or malformed.
    """
    root = Path(root)
    for part in ("images", "masks"):
        if not (root / part).is_dir():
            raise DatasetError(
                f"{root} is not a dataset folder: no folder '{part}' in it; expected images/, "
                "masks/, classes.json and splits.json"
            )
    class_names, palette, ignore_index = _read_classes(root / "classes.json")
    image_paths = {
        path.stem: path
        for path in sorted((root / "images").iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    }
    return DatasetFolder(
        root=root,
        class_names=class_names,
        palette=palette,
        ignore_index=ignore_index,
        splits=_read_splits(root / "splits.json"),
        image_paths=image_paths,
    )


def load_image(path: Path) -> NDArray[Any]:
    """Reads an image to learn from, (H, W, C), in the order of :class:`Sample`.

    Raises:
        DatasetError: The file is unreadable.
    """
    try:
        image = read_image(path)
    except InputError as error:
        raise DatasetError(str(error)) from error
    if image.shape[2] == 3 and path.suffix.lower() not in RASTER_SUFFIXES:
        image = image[:, :, ::-1]
    return np.ascontiguousarray(image)


def _read_classes(
    path: Path,
) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...], int]:
    content = _read_json_object(path)
    try:
        classes = sorted(content["classes"], key=lambda entry: entry["index"])
        names = tuple(str(entry["name"]) for entry in classes)
        red_green_blue = tuple(tuple(int(v) for v in entry.get("color", ())) for entry in classes)
        indices = [entry["index"] for entry in classes]
        ignore_index = int(content.get("ignore_index", 255))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{path}: expected {{'classes': [{{'index': 0, 'name': ..., 'color': [r, g, b]}}], "
            f"'ignore_index': 255}}; reading it failed with {error!r}"
        ) from error
    if indices != list(range(len(names))) or not names:
        raise DatasetError(f"{path}: class indices are {indices}; expected 0, 1, 2 ... in a row")
    palette = tuple((c[0], c[1], c[2]) for c in red_green_blue if len(c) == 3)
    return names, palette if len(palette) == len(names) else (), ignore_index


def _read_splits(path: Path) -> dict[str, tuple[str, ...]]:
    content = _read_json_object(path)
    splits = {}
    for name, stems in content.items():
        if not isinstance(stems, list) or not all(isinstance(stem, str) for stem in stems):
            raise DatasetError(f"{path}: split '{name}' is not a list of file-name stems")
        splits[name] = tuple(stems)
    seen: dict[str, str] = {}
    for name, stems in splits.items():
        for stem in stems:
            if stem in seen:
                raise DatasetError(
                    f"{path}: '{stem}' stands in the splits '{seen[stem]}' and '{name}'; "
                    "an image may be in one only, or the test figures mean nothing"
                )
            seen[stem] = name
    return splits


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(
            f"cannot read {path}: {error.strerror}; a dataset folder needs it"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
