"""Leave-one-group-out cross-validation: what a recipe is worth on places it has never seen.

Few labels mean few test images, and figures that hang on which ones they are. Here every group of
images is left out once: a network is trained on the others and measured on it. The counts of all
folds make one confusion matrix, from which the pooled figures come.

Each fold is a run in a folder of its own, ``<folder>/<group>``. Started again, finished folds are
read back, and the one that was interrupted resumes.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cclseg.errors import InputError
from cclseg.evaluate import evaluate
from cclseg.files import make_folder, write_bytes, write_json
from cclseg.metrics import ConfusionMatrix
from cclseg.segmenter import Segmenter
from cclseg.spec import ModelSpec
from cclseg.val_page import val_page
from cclseg.val_record import ValidationRecord

from .backend import TorchBackend
from .models import config_to_dict
from .train import train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from .config import TrainConfig
    from .folds import Fold
    from .models import ModelConfig
    from .train import Progress

PLAN_NAME, TRAINED_NAME, RESULT_NAME = "folds.json", "trained.json", "left_out.json"
PAGE_NAME = "left_out.html"


@dataclass(frozen=True, slots=True)
class FoldResult:
    """How a network did on the group that it had not seen.

    Attributes:
        name: Of the group.
        step: The step whose weights the others of its fold chose.
        matrix: Counts of the group's images.
    """

    name: str
    step: int
    matrix: ConfusionMatrix


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """All folds together.

    Attributes:
        spec: Names and colours of the classes, and the network's name.
        folds: In the order in which the groups were left out.
    """

    spec: ModelSpec
    folds: tuple[FoldResult, ...]

    @property
    def pooled(self) -> ConfusionMatrix:
        """The sum of the folds' counts, those of boundaries included."""
        pooled = ConfusionMatrix(self.spec.num_classes)
        for fold in self.folds:
            pooled.counts += fold.matrix.counts
            pooled.boundary.counts += fold.matrix.boundary.counts
            pooled.images += fold.matrix.images
        return pooled

    def to_json(self) -> dict[str, Any]:
        """Returns the figures of each fold, their mean and deviation, and the pooled ones."""
        iou = np.array([fold.matrix.iou for fold in self.folds])
        mean, deviation = mean_and_std(np.array([fold.matrix.miou for fold in self.folds]))
        pooled, names = self.pooled, self.spec.class_names
        return {
            "pooled": pooled.report(names),
            "mean_miou": mean,
            "std_miou": deviation,
            "per_class_iou": {
                name: dict(zip(("mean", "std"), mean_and_std(column), strict=True))
                for name, column in zip(names, iou.T, strict=True)
            },
            "folds": {
                fold.name: {"step": fold.step, **fold.matrix.report(names)} for fold in self.folds
            },
            "confusion": pooled.counts.tolist(),
        }


def cross_validate(
    folds: Sequence[Fold],
    model_config: ModelConfig,
    config: TrainConfig,
    folder: Path,
    *,
    files: dict[str, Any],
    watch: Callable[[Fold], AbstractContextManager[Progress]],
) -> CrossValidation:
    """Trains once for each fold and measures on what it leaves out.

    Args:
        folds: As :func:`~cclseg_trainer.folds.plan_folds` gives them.
        model_config: The network.
        config: The recipe.
        folder: Gets a folder for each fold; continued where it holds the same cross-validation.
        files: Checkpoints that :func:`~cclseg_trainer.train.train` begins with or learns from, by
            the names of its arguments.
        watch: Gives what is told of the steps and validations of a fold that is trained.

    Raises:
        InputError: The folder holds another cross-validation.
        DatasetError: Files of the data are broken; all are named.
        TrainingError: As in :func:`~cclseg_trainer.train.train`.
    """
    dataset = folds[0].dataset
    dataset.check()
    _start(folder, _plan(folds, model_config, config, files))
    results = []
    for fold in folds:
        run = folder / fold.name
        if not (run / TRAINED_NAME).exists():
            with watch(fold) as progress:
                result = train(fold.dataset, model_config, config, run, **files, progress=progress)
            write_json(run / TRAINED_NAME, {"step": result.step, "val": result.report})
        if not (run / RESULT_NAME).exists():
            _measure(fold, run)
        results.append(_read_result(fold, run))
    spec = ModelSpec(
        name=model_config.name,
        class_names=dataset.class_names,
        palette=dataset.palette,
        ignore_index=dataset.ignore_index,
    )
    return CrossValidation(spec, tuple(results))


def mean_and_std(values: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Returns mean and sample standard deviation of what is a number, None where they are none."""
    present = values[~np.isnan(values)]
    mean = float(present.mean()) if present.size else None
    return mean, float(present.std(ddof=1)) if present.size > 1 else None


def _measure(fold: Fold, run: Path) -> None:
    """Segments the group that was left out and writes down what came of it."""
    dataset = fold.dataset
    record = ValidationRecord(len(dataset.class_names), ignore_index=dataset.ignore_index)
    with Segmenter.from_backend(TorchBackend.open(run / "best.pt")) as segmenter:
        matrix = evaluate(segmenter, dataset, "test", on_result=record.add)
        spec = segmenter.spec
    page = val_page(matrix, record, spec, title=f"{spec.name} on {fold.name}, left out")
    write_bytes(run / PAGE_NAME, page.encode())
    report = matrix.report(dataset.class_names) | record.to_json()
    counts = {"confusion": matrix.counts.tolist(), "boundary": matrix.boundary.counts.tolist()}
    write_json(run / RESULT_NAME, report | counts)


def _read_result(fold: Fold, run: Path) -> FoldResult:
    matrix = ConfusionMatrix(len(fold.dataset.class_names))
    measured = _read_own(run / RESULT_NAME)
    matrix.counts += np.array(measured["confusion"], np.int64)
    matrix.boundary.counts += np.array(measured["boundary"], np.int64)
    matrix.images = measured["images"]
    return FoldResult(fold.name, _read_own(run / TRAINED_NAME)["step"], matrix)


def _read_own(path: Path) -> dict[str, Any]:
    """Reads what an earlier start wrote, whole as it was."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is damaged ({error}); remove it, and what it stands for is done again"
        ) from error
    return content


def _plan(
    folds: Sequence[Fold], model_config: ModelConfig, config: TrainConfig, files: dict[str, Any]
) -> dict[str, Any]:
    """Returns all that decides what a cross-validation finds, but for the images."""
    plan = {
        "classes": folds[0].dataset.class_names,
        "folds": {fold.name: fold.splits() for fold in folds},
        "model": config_to_dict(model_config),
        "train": dataclasses.asdict(config),
        "files": {
            name: [str(path) for path in given] if isinstance(given, tuple) else str(given)
            for name, given in files.items()
            if given
        },
    }
    as_written: dict[str, Any] = json.loads(json.dumps(plan))
    return as_written


def _start(folder: Path, plan: dict[str, Any]) -> None:
    """Writes the plan, or refuses a folder that holds another one."""
    path = make_folder(folder) / PLAN_NAME
    if not path.exists():
        write_json(path, plan)
        return
    before = _read_own(path)
    changed = [part for part in plan if before.get(part) != plan[part]]
    if changed:
        raise InputError(
            f"{path} is of another cross-validation (other {', '.join(changed)}); use the old "
            "settings to continue it, or another folder"
        )
