"""What a person sees of a training run: a bar with ETA, one line per validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from types import TracebackType


class TrainingDisplay:
    """Draws a run on the terminal; without one, prints a line per validation only.

    Args:
        is_shown: False for all but one of several processes.
    """

    def __init__(self, *, is_shown: bool = True) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (is_shown and self._console.is_terminal),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> TrainingDisplay:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def on_step(self, step: int, steps: int, loss: float) -> None:
        """Moves the bar."""
        if self._task is None:
            self._task = self._bar.add_task("training", total=steps, loss=loss)
        self._bar.update(self._task, completed=step, total=steps, loss=loss)

    def on_validation(self, step: int, report: dict[str, Any], *, is_best: bool) -> None:
        """Prints the figures of a validation."""
        shares = " ".join(
            f"{name} {figures['iou']:.3f}"
            for name, figures in report["per_class"].items()
            if figures["iou"] is not None
        )
        mark = "  best so far" if is_best else ""
        self._console.print(
            f"step {step}: mIoU {report['miou']:.3f} ({shares}){mark}", soft_wrap=True
        )


class PretrainingDisplay(TrainingDisplay):
    """The same for a run without labels."""

    def on_validation(self, step: int, report: dict[str, Any], *, is_best: bool) -> None:
        """Prints what is unexplained, and whether features still differ."""
        mark = "  best so far" if is_best else ""
        self._console.print(
            f"step {step}: {report['unexplained']:.1%} unexplained, features in "
            f"{report['feature_dimensions']:.1f} dimensions, deviation "
            f"{report['feature_std']:.2f}{mark}",
            soft_wrap=True,
        )
