"""What an export calibrates and measures with, checked before any work is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cclseg.dataset import DatasetFolder, open_dataset
from cclseg.errors import InputError
from cclseg.evaluate import check_classes

from .tiles import CalibrationSet, calibration_tiles, unseen_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cclseg.frame import FloatArray
    from cclseg.spec import ModelSpec

    from .options import ExportOptions


@dataclass(frozen=True, slots=True)
class Material:
    """What INT8 is calibrated on and files are measured on.

    Attributes:
        calibration: Tiles of real images; None without INT8.
        unseen: The same of the split that a search may look at, empty where the data have none.
        dataset: Labelled images; None where there are none and none are needed.
    """

    calibration: CalibrationSet | None
    dataset: DatasetFolder | None
    unseen: Sequence[FloatArray] = ()


def checked_material(spec: ModelSpec, options: ExportOptions) -> Material:
    """Reads the calibration tiles, and looks at what accuracy is to be measured on.

    Raises:
        DatasetError: A file of the data is damaged, or a split is missing.
        InputError: Images or labels are missing, or do not fit the network.
    """
    if options.int8 and options.calibration is None:
        raise InputError(
            "INT8 needs real images to calibrate on; give --calib FOLDER (a folder of images or a "
            "dataset folder)"
        )
    calibration = dataset = None
    if options.int8 and options.calibration:
        calibration = calibration_tiles(options.calibration, spec)
    labelled = options.data or (options.calibration if options.int8 else None)
    if labelled:
        dataset = _checked_dataset(labelled, spec, options)
    unseen: Sequence[FloatArray] = ()
    if options.int8 and dataset and _may_be_seen(options.search_split, dataset, options):
        unseen = unseen_tiles(dataset, options.search_split, spec)
    return Material(calibration, dataset, unseen)


def _may_be_seen(split: str, dataset: DatasetFolder, options: ExportOptions) -> bool:
    """Tells whether a split exists and is not the one that decides."""
    return split in dataset.splits and split != options.split


def _checked_dataset(folder: Path, spec: ModelSpec, options: ExportOptions) -> DatasetFolder:
    if options.data is None and not (folder / "masks").is_dir():
        raise InputError(
            f"{folder} has no labels; INT8 is measured on labelled images before it is handed "
            "over: give a dataset folder with --data FOLDER"
        )
    dataset = open_dataset(folder)
    check_classes(spec, dataset)
    splits = (options.split, options.search_split) if options.auto else (options.split,)
    bands = dataset.check(splits)
    if bands != len(spec.bands):
        raise InputError(
            f"the images of {folder} have {bands} bands, the model takes {len(spec.bands)} "
            f"({', '.join(spec.bands)}); measure on images of the same kind"
        )
    return dataset
