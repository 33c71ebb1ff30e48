"""Says whether the libraries of this machine compute the same, and if not, where they part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cclseg.correlation import local_correlation
from cclseg.errors import BackendError

from ..operator import DOMAIN, OP_TYPE
from .segments import OUTPUT_MARK, Graph, Layer, Piece

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from cclseg.frame import FloatArray

    from .libraries import Run, Variant

DEFINITION = "definition, float64"
"""Name of the operator's definition in reports."""

SURE_MARGIN = 0.1
"""Distance of the best two logits, over the largest logit, above which a place is no near tie."""

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


@dataclass(slots=True)
class Comparison:
    """What all of them gave, and the operator's definition where the network holds it."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def agrees(self, tolerance: Tolerance) -> bool:
        """Says whether everything that was run agrees."""
        return all(outcome.agrees(tolerance) for outcome in self.outcomes.values())

    def __getitem__(self, name: str) -> Outcome:
        return self.outcomes.setdefault(name, Outcome(name))


def compare(
    model: onnx.ModelProto,
    images: Sequence[FloatArray],
    variants: Sequence[Variant],
    *,
    tolerance: Tolerance,
    others: Mapping[str, Callable[[FloatArray], FloatArray]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Runs a network on the same images in every variant, as a whole and layer by layer.

    Args:
        model: The network.
        images: Network inputs, each (1, C, H, W) float32, all of one shape.
        variants: The ways to run it, the reference first.
        tolerance: What counts as equal.
        others: Further ways to compute the logits as a whole, such as torch.
        progress: Called with the number of layers behind and of all.

    Raises:
        BackendError: The reference cannot run the network.
    """
    graph = Graph(model, images[0].shape)
    comparison = Comparison()
    reference, *rest = variants
    _compare_whole(comparison, graph, model, images, variants, others or {})
    layers = graph.layers()
    values: list[dict[str, NDArray[Any]]] = [{graph.input: image} for image in images]
    done = 0
    for piece in graph.pieces(layers):
        chain = reference.load(graph.chain_of(piece, values[0]))
        for known in values:
            known.update(chain({name: known[name] for name in _taken(piece, known)}))
        for variant in rest:
            _compare_piece(comparison[variant.name], variant, graph, piece, values, tolerance)
        for layer in piece.layers:
            _compare_definition(comparison, layer, graph, values, tolerance)
        for known in values:
            for name in piece.finished:
                known.pop(name, None)
        done += len(piece.layers)
        if progress is not None:
            progress(done, len(layers))
    return comparison


def _taken(piece: Piece, known: Mapping[str, Any]) -> list[str]:
    own = {layer.tensor for layer in piece.layers}
    return [name for name in piece.inputs if name in known and name not in own]


def _compare_whole(
    comparison: Comparison,
    graph: Graph,
    model: onnx.ModelProto,
    images: Sequence[FloatArray],
    variants: Sequence[Variant],
    others: Mapping[str, Callable[[FloatArray], FloatArray]],
) -> None:
    name = "logits" if "logits" in graph.outputs else graph.outputs[0]
    run = variants[0].load(model)
    expected = [run({graph.input: image})[name] for image in images]
    for variant in variants[1:]:
        outcome = comparison[variant.name]
        try:
            run = variant.load(model)
            found = [run({graph.input: image})[name] for image in images]
        except BackendError as error:
            outcome.problem = str(error)
        else:
            _note_logits(outcome, expected, found)
    for other, infer in others.items():
        _note_logits(comparison[other], expected, [infer(image) for image in images])


def _note_logits(
    outcome: Outcome, expected: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]
) -> None:
    """Compares the logits, (1, K, h, w) each."""
    same, sure, errors = [], [], []
    for want, got in zip(expected, found, strict=True):
        largest = max(float(np.abs(want).max()), np.finfo(np.float32).tiny)
        errors.append(float(np.abs(want - got).max()) / largest)
        same.append(want.argmax(axis=1) == got.argmax(axis=1))
        best = np.sort(want, axis=1)[:, -2:]
        margin = best[:, 1] - best[:, 0] if best.shape[1] == 2 else np.full(want[:, 0].shape, 1.0)
        sure.append(margin > SURE_MARGIN * largest)
    outcome.logits_error = max(errors)
    outcome.agreement = float(np.mean(same))
    kept = np.concatenate([s[m] for s, m in zip(same, sure, strict=True)])
    outcome.agreement_where_sure = float(kept.mean()) if kept.size else None


def _compare_piece(
    outcome: Outcome,
    variant: Variant,
    graph: Graph,
    piece: Piece,
    values: Sequence[Mapping[str, NDArray[Any]]],
    tolerance: Tolerance,
) -> None:
    if outcome.problem is not None:
        return
    try:
        run: Run = variant.load(graph.model_of(piece, values[0]))
        found = [run({name: known[name] for name in piece.inputs}) for known in values]
    except BackendError as error:
        first, last = piece.layers[0], piece.layers[-1]
        outcome.problem = f"layers {first.node.name} to {last.node.name}: {error}"
        return
    for image, (known, outputs) in enumerate(zip(values, found, strict=True)):
        for layer in piece.layers:
            want, got = known[layer.tensor], outputs[layer.tensor + OUTPUT_MARK]
            if want.dtype.kind in "fui" and want.size:
                outcome.note(difference(layer, want, got, image=image, tolerance=tolerance))


def _compare_definition(
    comparison: Comparison,
    layer: Layer,
    graph: Graph,
    values: Sequence[Mapping[str, NDArray[Any]]],
    tolerance: Tolerance,
) -> None:
    """Asks the definition what the reference should have given."""
    if (layer.node.domain, layer.node.op_type) != (DOMAIN, OP_TYPE):
        return
    options = {entry.name: entry for entry in layer.node.attribute}
    whole = {name: options[name].i for name in ("radius", "dilation", "groups") if name in options}
    normalize = "normalize" in options and bool(options["normalize"].i)
    scales = [options[name].f if name in options else 1.0 for name in ("a_scale", "b_scale")]
    for image, known in enumerate(values):
        maps = [known.get(name, graph.weight(name)) for name in layer.node.input]
        if any(taken is None for taken in maps):  # computed from weights alone: not looked at
            return
        a, b = (taken * np.float64(scale) for taken, scale in zip(maps, scales, strict=True))
        want = local_correlation(a, b, normalize=normalize, **whole)
        found = difference(layer, want, known[layer.tensor], image=image, tolerance=tolerance)
        comparison[DEFINITION].note(found)


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
