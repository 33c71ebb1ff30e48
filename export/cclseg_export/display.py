"""What a person sees of an export: a bar with ETA for each step, then one table."""

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
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType


_PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
"""Text of ours is printed as it is; the terminal breaks long lines, so that they can be copied."""


class ExportDisplay:
    """Draws a bar for each step on a terminal; elsewhere it prints a line per step."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._current = ""

    def __enter__(self) -> ExportDisplay:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        self._bars.stop()

    def on_progress(self, step: str, done: int, total: int) -> None:
        """Moves the bar of a step; a total of 0 is one that nobody knows."""
        if step != self._current:
            self._finish()
            self._current = step
            if step not in self._tasks:
                self._tasks[step] = self._bars.add_task(step, total=None)
                if not self._console.is_terminal:
                    self._console.print(f"{step} ...")
        self._bars.update(self._tasks[step], completed=done, total=total or None)

    def _finish(self) -> None:
        """Fills the bar of the step that ends."""
        if self._current:
            task = self._tasks[self._current]
            total = self._bars.tasks[task].total or max(1, self._bars.tasks[task].completed)
            self._bars.update(task, completed=total, total=total)


def print_result(report: Mapping[str, Any], files: Sequence[Path], folder: Path) -> None:
    """Prints what was written and measured: bad news first, then figures, then what to try."""
    console = Console()
    for line in report["headlines"]:
        console.print(f"! {line}", style="bold yellow", **_PLAIN)
    if report["data"]:
        console.print(_table(report))
    for line in report["advice"]:
        console.print(f"try: {line}", **_PLAIN)
    for path in (*files, folder / "parity.html"):
        console.print(f"{path}  {path.stat().st_size / 1e6:.2f} MB", **_PLAIN)


def _table(report: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("file", "backend"):
        table.add_column(column, overflow="fold")
    for column in ("mIoU", "worst class", "same", "speed"):
        table.add_column(column, justify="right")
    for file in report["files"]:
        for backend, figures in file["backends"].items():
            style = "bold red" if file["rejected"] else ""
            table.add_row(file["name"], backend, *_figures(figures), style=style)
    return table


def _figures(figures: Mapping[str, Any]) -> tuple[str, ...]:
    losses = [(loss, name) for name, loss in figures["iou_loss_points"].items() if loss is not None]
    loss, place = max(losses, default=(0.0, "no class"))
    return (
        f"{figures['miou']:.4f}",
        f"{round(-loss, 2) + 0.0:+.2f} {place}",
        f"{100 * figures['agreement']:.1f} %",
        f"{figures['latency_ratio']:.2f} x" if "latency_ratio" in figures else "-",
    )
