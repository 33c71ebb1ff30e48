"""The folds of a cross-validation: which images are left out, which choose weights, which teach.

Images of one place look alike, so whole groups of them are left out. The groups are

* tiles: those of ``groups.json`` in the dataset folder, ``{"name": [stems]}``, where there is one;
  else by the file names, up to the last underscore before a number (``tile7_part003`` is of
  ``tile7``);
* single images;
* a number of folds, over which the tiles are spread so that all hold about as many images.

Every labelled image of the dataset is left out once, whatever split it stands in.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cclseg.dataset import UNLABELLED
from cclseg.errors import DatasetError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cclseg.dataset import DatasetFolder

GROUPS_NAME = "groups.json"
_TILE = re.compile(r"(?P<tile>.+)_[A-Za-z]*\d+")
_FOLDER_NAME = re.compile(r"[^/\\\0.][^/\\\0]*")
_VAL_SHARE = 0.2
_SHOWN = 5

Groups: TypeAlias = "Mapping[str, tuple[str, ...]]"
"""Stems by the name of their group, in the order in which the groups are left out."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One training of a cross-validation.

    Attributes:
        name: Of the group that is left out; names the folder of the run, too.
        dataset: The data, whose split "test" is the group that is left out.
    """

    name: str
    dataset: DatasetFolder

    def splits(self) -> dict[str, list[str]]:
        """Returns the stems of each split, ready for JSON."""
        return {split: list(stems) for split, stems in self.dataset.splits.items()}


def find_groups(dataset: DatasetFolder, wanted: str = "tile") -> Groups:
    """Returns the groups of a dataset's images.

    Args:
        dataset: The data.
        wanted: "tile", "image", a number of folds, or a file in the form of ``groups.json``.

    Raises:
        InputError: There are too few groups, or the file does not exist.
        DatasetError: A file name or the file does not say which group an image is of.
    """
    if wanted == "image":
        return {stem: (stem,) for stem in _stems(dataset)}
    if wanted.endswith(".json"):
        return _read_groups(dataset, Path(wanted))
    tiles = _tiles(dataset)
    if wanted == "tile":
        return tiles
    if not wanted.isdecimal():
        raise InputError(
            f"groups '{wanted}'; expected tile, image, a number of folds or a .json file"
        )
    return _spread(tiles, int(wanted))


def plan_folds(dataset: DatasetFolder, groups: Groups) -> tuple[Fold, ...]:
    """Leaves out one group after another.

    Of the others, those that follow the left-out one in turn choose the weights, as many whole
    groups as hold a fifth of the remaining labelled images, but not all; the rest is trained on.
    Images without labels are used where their group is trained on.

    Raises:
        InputError: There are fewer than three groups with labelled images.
    """
    unlabelled = set(dataset.splits.get(UNLABELLED, ()))
    labelled = {
        name: found
        for name, stems in groups.items()
        if (found := tuple(stem for stem in stems if stem not in unlabelled))
    }
    if len(labelled) < 3:
        raise InputError(
            f"{dataset.root} has the groups {', '.join(labelled)}; expected three at least: one to "
            "leave out, one to choose weights by, one to train on (--groups image leaves out "
            "single images)"
        )
    names = list(labelled)
    folds = []
    for place, name in enumerate(names):
        others = names[place + 1 :] + names[:place]
        choosing = others[: _enough(others, labelled)]
        training = others[len(choosing) :]
        splits = {
            "train": tuple(stem for other in training for stem in labelled[other]),
            "val": tuple(stem for other in choosing for stem in labelled[other]),
            "test": labelled[name],
            UNLABELLED: tuple(
                stem
                for other, stems in groups.items()
                if other != name and other not in choosing
                for stem in stems
                if stem in unlabelled
            ),
        }
        kept = {split: stems for split, stems in splits.items() if stems}
        folds.append(Fold(name, dataclasses.replace(dataset, splits=kept)))
    return tuple(folds)


def _enough(others: list[str], groups: Groups) -> int:
    """Returns how many of the first groups hold a fifth of all images, one at least, never all."""
    counts = [len(groups[name]) for name in others]
    taken = 1
    while taken < len(counts) - 1 and sum(counts[:taken]) < _VAL_SHARE * sum(counts):
        taken += 1
    return taken


def _stems(dataset: DatasetFolder) -> list[str]:
    return sorted(stem for stems in dataset.splits.values() for stem in stems)


def _tiles(dataset: DatasetFolder) -> Groups:
    if (dataset.root / GROUPS_NAME).exists():
        return _read_groups(dataset, dataset.root / GROUPS_NAME)
    groups: dict[str, tuple[str, ...]] = {}
    nameless = []
    for stem in _stems(dataset):
        if found := _TILE.fullmatch(stem):
            groups[found["tile"]] = (*groups.get(found["tile"], ()), stem)
        else:
            nameless.append(stem)
    if nameless:
        raise DatasetError(
            f"{dataset.root}: {_some(nameless)} do not say which tile they are of; expected names "
            f"such as tile7_part003; write {GROUPS_NAME} or take --groups image"
        )
    return groups


def _spread(tiles: Groups, count: int) -> Groups:
    """Spreads tiles over folds, the largest first, each to the fold with the fewest images."""
    if not 3 <= count <= len(tiles):
        raise InputError(f"{count} folds of {len(tiles)} tiles; expected 3 to {len(tiles)}")
    folds: list[tuple[str, ...]] = [()] * count
    for name in sorted(tiles, key=lambda name: (-len(tiles[name]), name)):
        place = min(range(count), key=lambda place: len(folds[place]))
        folds[place] = (*folds[place], *tiles[name])
    return {f"fold{place}": stems for place, stems in enumerate(folds, start=1)}


def _read_groups(dataset: DatasetFolder, path: Path) -> Groups:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    is_mapping = isinstance(content, dict) and all(
        isinstance(stems, list) and all(isinstance(stem, str) for stem in stems)
        for stems in content.values()
    )
    if not is_mapping:
        raise DatasetError(f'{path}: expected {{"name": [stems], ...}}, one list for each group')
    groups = {name: tuple(stems) for name, stems in content.items()}
    _check_groups(dataset, groups, path)
    return groups


def _check_groups(dataset: DatasetFolder, groups: Groups, path: Path) -> None:
    """Refuses groups that do not hold each image once, or cannot name a folder."""
    known = set(_stems(dataset))
    listed = [stem for stems in groups.values() for stem in stems]
    wrong_names = [name for name in groups if not _FOLDER_NAME.fullmatch(name)]
    problems = (
        (wrong_names, "cannot name a folder; expected names without a slash or leading dot"),
        (sorted(known - set(listed)), "of splits.json are in no group"),
        (sorted(set(listed) - known), "are in no split of splits.json"),
        (sorted({s for s in listed if listed.count(s) > 1}), "are in more than one place"),
    )
    for names, problem in problems:
        if names:
            raise DatasetError(f"{path}: {_some(names)} {problem}")


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
