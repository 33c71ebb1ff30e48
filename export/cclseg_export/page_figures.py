"""How figures of ``parity.json`` are written on its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cclseg import report


def worst_loss(figures: Mapping[str, Any]) -> tuple[float, str]:
    """Returns the largest loss of any class in points, and the class."""
    losses = ((loss, name) for name, loss in figures["iou_loss_points"].items() if loss is not None)
    return max(losses, default=(0.0, "no class"))


def iou_before(figures: Mapping[str, Any], name: str) -> float | None:
    """Returns the IoU that a class had in the original, None where it occurs nowhere."""
    iou, loss = figures["iou"][name], figures["iou_loss_points"][name]
    return None if iou is None or loss is None else iou + loss / 100


def signed_loss(loss_points: float, place: str, *, budget: float) -> report.Html:
    """A loss with where it is; red outside the budget."""
    return report.joined([signed_change(loss_points, budget), f" {place}"])


def signed_change(loss_points: float | None, budget: float) -> report.Html:
    """The change that a loss is, with its sign; red outside the budget."""
    if loss_points is None:
        return report.joined(["–"])
    text = signed_points(-loss_points)
    return (
        report.element("span", text, class_="lost")
        if loss_points > budget
        else report.joined([text])
    )


def signed_points(gain: float) -> str:
    """A gain with its sign; +0.00 for what rounds to nothing."""
    return f"{round(gain, 2) + 0.0:+.2f}"


def figure(value: float | None, form: str) -> str:
    """A figure in a form of :func:`format`; a dash for None."""
    return "–" if value is None else format(value, form)
