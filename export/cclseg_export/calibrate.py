"""Measures the ranges of a network on real images, once for all targets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from cclseg.errors import InputError

from .emulate import open_session
from .graph import copy_of, input_name
from .plan import calibrated_tensors
from .thresholds import check_method, threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cclseg.frame import FloatArray
    from cclseg.spec import ModelSpec

    from .thresholds import Method

logger = logging.getLogger(__name__)

_BINS = 2048
_SMALLEST = 1e-6
"""A tensor that is always 0 still needs a step above 0."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """How large the numbers of a network get.

    Attributes:
        magnitudes: The largest magnitude to keep, by tensor.
        non_negative: Tensors that never are below 0.
        input_name: Name of the images.
        input_limits: Smallest and largest value of the images: of 8-bit images where they are,
            so that every pixel value has an integer of its own.
        method: How the magnitudes were chosen.
        tiles: Number of tiles they were measured on.
    """

    magnitudes: Mapping[str, float]
    non_negative: frozenset[str]
    input_name: str
    input_limits: tuple[float, float]
    method: str
    tiles: int

    def limits(self, name: str) -> tuple[float, float]:
        """Returns the smallest and largest value of a tensor to keep: (-m, m) or (0, m).

        Raises:
            InputError: The tensor was not measured.
        """
        if name == self.input_name:
            return self.input_limits
        if name not in self.magnitudes:
            raise InputError(
                f"the ranges say nothing of the tensor '{name}'; they were measured on another "
                "model: calibrate this one"
            )
        magnitude = self.magnitudes[name]
        return (0.0 if name in self.non_negative else -magnitude), magnitude

    def to_json(self) -> str:
        """Returns the ranges as one line of JSON."""
        return json.dumps(
            {
                "method": self.method,
                "tiles": self.tiles,
                "input_name": self.input_name,
                "input_limits": self.input_limits,
                "non_negative": sorted(self.non_negative),
                "magnitudes": dict(self.magnitudes),
            },
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Ranges:
        """Reads what :meth:`to_json` wrote.

        Raises:
            InputError: The text is something else.
        """
        try:
            content = json.loads(text)
            low, high = content["input_limits"]
            return cls(
                magnitudes={name: float(value) for name, value in content["magnitudes"].items()},
                non_negative=frozenset(content["non_negative"]),
                input_name=content["input_name"],
                input_limits=(float(low), float(high)),
                method=content["method"],
                tiles=content["tiles"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"this is no record of ranges ({error!r}); calibrate again") from error


def calibrate(
    model: onnx.ModelProto,
    tiles: Sequence[FloatArray],
    *,
    spec: ModelSpec,
    method: Method = "minmax",
    percentile: float = 99.99,
) -> Ranges:
    """Measures how large every tensor gets that a target may want in 8 bits.

    All but "minmax" take a second pass that counts magnitudes in histograms. Memory is bounded by
    the activations of one tile.

    Args:
        model: The fp32 model.
        tiles: Network inputs, each (1, C, H, W) float32, cut from real images.
        spec: Means and deviations of the input.
        method: Keep the largest magnitude ("minmax"), a share of them ("percentile"), or what
            loses least by Kullback-Leibler divergence ("entropy") or by squared error ("mse").
        percentile: Share of magnitudes in percent that "percentile" keeps.

    Raises:
        InputError: No tiles, no such method, or the network gives numbers that are not finite.
    """
    check_method(method, percentile)
    if not tiles:
        raise InputError("calibration got no tiles; expected some cut from real images")
    images = input_name(model)
    names = [name for name in calibrated_tensors(model) if name != images]
    lowest, largest = _extremes(model, names, tiles)
    if method != "minmax":
        counts = _histograms(model, names, tiles, largest)
        largest = np.array(
            [
                threshold(c, float(m), method=method, percentile=percentile)
                for c, m in zip(counts, largest, strict=True)
            ]
        )
    logger.info("%d tensors calibrated on %d tiles by %s", len(names), len(tiles), method)
    return Ranges(
        magnitudes={n: max(float(m), _SMALLEST) for n, m in zip(names, largest, strict=True)},
        non_negative=frozenset(n for n, low in zip(names, lowest, strict=True) if low >= 0),
        input_name=images,
        input_limits=_input_limits(tiles, spec),
        method=method,
        tiles=len(tiles),
    )


def _extremes(
    model: onnx.ModelProto, names: list[str], tiles: Sequence[FloatArray]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the smallest value and the largest magnitude of each tensor over all tiles."""
    measuring = copy_of(model)
    del measuring.graph.output[:]
    for name in names:
        for kind in ("ReduceMin", "ReduceMax"):
            output = f"{name}_{kind}"
            measuring.graph.node.append(helper.make_node(kind, [name], [output], keepdims=0))
            measuring.graph.output.append(
                helper.make_tensor_value_info(output, TensorProto.FLOAT, ())
            )
    session = open_session(measuring)
    seen = np.array([session.run(None, {input_name(model): tile}) for tile in tiles], np.float64)
    lows, highs = seen[:, 0::2].min(axis=0), seen[:, 1::2].max(axis=0)
    for name, low, high in zip(names, lows, highs, strict=True):
        if not np.isfinite([low, high]).all():
            raise InputError(
                f"the tensor '{name}' reaches {low} ... {high} on these images; expected finite "
                "numbers: check the means and deviations of the spec, and the weights"
            )
    return lows, np.maximum(np.abs(lows), np.abs(highs))


def _histograms(
    model: onnx.ModelProto,
    names: list[str],
    tiles: Sequence[FloatArray],
    largest: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Counts magnitudes: (tensors, bins), equal bins from 0 to the largest of each tensor."""
    counts = np.zeros((len(names), _BINS), np.int64)
    for values in _activations(model, names, tiles):
        for i, value in enumerate(values):
            places = np.abs(value.ravel()) * (_BINS / max(largest[i], _SMALLEST))
            bins = np.minimum(places.astype(np.int32), _BINS - 1)
            counts[i] += np.bincount(bins, minlength=_BINS)
    return counts


def _activations(
    model: onnx.ModelProto, names: list[str], tiles: Sequence[FloatArray]
) -> Iterator[list[FloatArray]]:
    """Yields the values of the named tensors, tile by tile."""
    showing = copy_of(model)
    del showing.graph.output[:]
    showing.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    session = open_session(showing)
    for tile in tiles:
        yield session.run(None, {input_name(model): tile})


def _input_limits(tiles: Sequence[FloatArray], spec: ModelSpec) -> tuple[float, float]:
    """Returns the limits of 8-bit images, or of these tiles where they pass those."""
    means, deviations = np.array(spec.mean), np.array(spec.std)
    low, high = float((-means / deviations).min()), float(((255 - means) / deviations).max())
    seen_low = min(float(tile.min()) for tile in tiles)
    seen_high = max(float(tile.max()) for tile in tiles)
    rounding = 1e-4 * (high - low)
    if seen_low >= low - rounding and seen_high <= high + rounding:
        return low, high
    return seen_low, seen_high
