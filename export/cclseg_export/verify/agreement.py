"""Asks whether the libraries that run a file compute what the file says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from ..operator import correlation_nodes
from .compare import compare
from .figures import Tolerance, where_it_differs
from .libraries import find_variants

if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from pathlib import Path

    from cclseg.frame import FloatArray


def disagreement(path: Path, tiles: Sequence[FloatArray], backends: Container[str]) -> str | None:
    """Compares libraries layer by layer, as ``cclseg verify`` does with its usual tolerance.

    Args:
        path: An ONNX file that runs here without plug-ins.
        tiles: Network inputs, each (1, C, H, W) float32, all of one shape.
        backends: Names of the libraries in question, with or without the compiled operator.

    Returns:
        Where the first of them computes something else, None where all agree.
    """
    network = onnx.load(path)
    variants, _ = find_variants(has_operator=bool(correlation_nodes(network)))
    reference, *others = variants
    asked = [variant for variant in others if variant.backend in backends]
    tolerance = Tolerance()
    comparison = compare(network, tiles, [reference, *asked], tolerance=tolerance)
    names = [str(place) for place in range(len(tiles))]
    return next(
        (
            where_it_differs(outcome, names)
            for outcome in comparison.outcomes.values()
            if not outcome.agrees(tolerance)
        ),
        None,
    )
