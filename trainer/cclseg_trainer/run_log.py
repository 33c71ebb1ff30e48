"""The figures of a training run, in ``metrics.csv`` and for TensorBoard."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard import SummaryWriter

from cclseg.files import replacing

if TYPE_CHECKING:
    from pathlib import Path


class RunLog:
    """Writes a run's figures to ``metrics.csv`` and TensorBoard.

    Attributes:
        folder: That of the run.
    """

    _COLUMNS = ("step", "name", "value")

    def __init__(self, run: Path) -> None:
        self.folder = run
        self._path = run / "metrics.csv"
        self._tensorboard_dir = run / "tensorboard"
        self._rows: list[tuple[int, str, float]] = []

    def start(self, step: int) -> None:
        """Takes over the rows of an earlier start of the run up to ``step``."""
        if self._path.exists():
            with self._path.open(newline="") as file:
                rows = list(csv.reader(file))[1:]
            self._rows = [(int(s), n, float(v)) for s, n, v in rows if int(s) <= step]
        self._tensorboard = SummaryWriter(self._tensorboard_dir, purge_step=step + 1)

    def write(self, name: str, step: int, value: float) -> None:
        """Notes one figure."""
        self._rows.append((step, name, value))
        self._tensorboard.add_scalar(name, value, step)

    def validation(self, step: int, report: dict[str, Any]) -> None:
        """Notes the figures of a validation."""
        for name in ("miou", "accuracy", "macro_f1", "boundary_f"):
            if report[name] is not None:
                self.write(f"val/{name}", step, report[name])
        for name, figures in report["per_class"].items():
            if figures["iou"] is not None:
                self.write(f"val/iou/{name}", step, figures["iou"])
        self.save()

    def save(self) -> None:
        """Writes the file whole."""
        with replacing(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self._COLUMNS)
            writer.writerows(self._rows)

    def close(self) -> None:
        """Flushes TensorBoard."""
        self._tensorboard.close()
