"""Says whether the libraries of this machine compute the same, and if not, where they part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cclseg.correlation import local_correlation
from cclseg.errors import BackendError

from ..operator import DOMAIN, OP_TYPE
from .figures import Comparison, Outcome, Tolerance, difference
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
