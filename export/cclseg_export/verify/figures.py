"""Figures of a comparison: how much two answers differ, and what still counts as equal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .segments import Layer

_ROUNDING_UNITS = 8
"""A tensor in half precision may be off by so many units of its last place."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What still counts as equal.

    Attributes:
        relative: Largest difference of a layer in floating point, over its largest magnitude.
        steps: Largest difference of a layer in 8 bits, in its own steps.
        agreement: Smallest share of places without near ties that get the same class.
    """

    relative: float = 1e-3
    steps: int = 1
    agreement: float = 0.99


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference of one layer.

    Attributes:
        image: Index of the image.
        node: Name of the node.
        op: Its operator.
        tensor: Its output.
        layer: Place of the node in the graph.
        absolute: Largest difference, in the tensor's own unit.
        relative: The same over the tensor's largest magnitude.
        steps: The same in steps of an 8-bit tensor, None for others.
        place: Index of the value that differs most.
        expected: That value in the reference.
        got: That value here.
        excess: The difference over what is tolerated; above 1, the layer differs.
    """

    image: int
    node: str
    op: str
    tensor: str
    layer: int
    absolute: float
    relative: float
    steps: float | None
    place: tuple[int, ...]
    expected: float
    got: float
    excess: float

    @property
    def size(self) -> str:
        """The difference in steps where there are any, else over the largest magnitude."""
        if self.steps is not None:
            return f"{self.steps:.0f} step" + ("s" if self.steps != 1 else "")
        return f"{self.relative:.1e}"


@dataclass(slots=True)
class Outcome:
    """What became of one way to run the network.

    Attributes:
        name: Of the variant.
        layers: Number of layers compared.
        first: The first layer beyond the tolerance, in the graph's order.
        worst: The layer that differs most.
        logits_error: Largest difference of the logits of the whole network, over the largest.
        agreement: Share of places with the same class.
        agreement_where_sure: The same where no two classes nearly tie.
        problem: Why it could not be run, None where it could.
    """

    name: str
    layers: int = 0
    first: Difference | None = None
    worst: Difference | None = None
    logits_error: float | None = None
    agreement: float | None = None
    agreement_where_sure: float | None = None
    problem: str | None = None

    def agrees(self, tolerance: Tolerance) -> bool:
        """Says whether it computes what the reference computes."""
        sure = self.agreement_where_sure
        return (
            self.problem is None
            and self.first is None
            and (sure is None or sure >= tolerance.agreement)
        )

    def note(self, difference: Difference) -> None:
        """Counts a layer of one image."""
        self.layers += difference.image == 0
        if self.worst is None or difference.excess > self.worst.excess:
            self.worst = difference
        earlier = self.first is None or difference.layer < self.first.layer
        if difference.excess > 1 and earlier:
            self.first = difference


def where_it_differs(outcome: Outcome, images: Sequence[str]) -> str:
    """Says in one line where a way to run the network leaves the reference.

    Args:
        outcome: One that does not agree.
        images: What the images are called.
    """
    if outcome.problem is not None:
        return f"{outcome.name} cannot run it: {outcome.problem}"
    first = outcome.first
    if first is None:
        return (
            f"{outcome.name}: every layer agrees for the same input, the masks do not; small "
            "differences add up, or arise where the library fuses layers"
        )
    size = f"{first.relative:.1e} of the largest value" if first.steps is None else first.size
    return (
        f"{outcome.name} first differs in node {first.layer} '{first.node}' ({first.op}), tensor "
        f"'{first.tensor}', image {images[first.image]}: got {first.got:.6g}, expected "
        f"{first.expected:.6g} at {list(first.place)}, off by {size}"
    )


@dataclass(slots=True)
class Comparison:
    """What all of them gave, and the operator's definition where the network holds it."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def agrees(self, tolerance: Tolerance) -> bool:
        """Says whether everything that was run agrees."""
        return all(outcome.agrees(tolerance) for outcome in self.outcomes.values())

    def __getitem__(self, name: str) -> Outcome:
        return self.outcomes.setdefault(name, Outcome(name))


def difference(
    layer: Layer,
    want: NDArray[Any],
    got: NDArray[Any],
    *,
    image: int,
    tolerance: Tolerance,
) -> Difference:
    """Returns the largest difference of a layer.

    Args:
        layer: The layer.
        want: What the reference gave.
        got: What the library gave, of the same shape.
        image: Index of the image.
        tolerance: What counts as equal.
    """
    expected, found = want.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gaps = np.abs(expected - found)
    # Two infinities or two NaN are the same answer; one of them alone is the worst difference.
    equal = (expected == found) | (np.isnan(expected) & np.isnan(found))
    gaps = np.where(equal, 0.0, np.where(np.isnan(gaps), np.inf, gaps))
    place = np.unravel_index(int(gaps.argmax()), gaps.shape)
    gap = float(gaps[place])
    finite = np.abs(expected[np.isfinite(expected)])
    largest = max(float(finite.max(initial=0.0)), np.finfo(np.float32).tiny)
    is_8_bit = want.dtype.kind in "ui"
    if is_8_bit:
        allowed = float(tolerance.steps)
    else:
        unit = np.finfo(got.dtype).eps if got.dtype.kind == "f" else 0.0
        allowed = max(tolerance.relative, _ROUNDING_UNITS * float(unit)) * largest
    return Difference(
        image=image,
        node=layer.node.name,
        op=layer.node.op_type,
        tensor=layer.tensor,
        layer=layer.index,
        absolute=gap,
        relative=gap / largest,
        steps=gap if is_8_bit else None,
        place=tuple(int(axis) for axis in place),
        expected=float(expected[place]),
        got=float(found[place]),
        excess=gap / allowed if allowed else (np.inf if gap else 0.0),
    )
