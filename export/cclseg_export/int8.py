"""INT8 forms of one network, for any target and with any layers in floating point."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from .bias import correct_bias, sampled_logits
from .calibrate import calibrate
from .emit import emit
from .emulate import runnable_anywhere
from .gate import STAND_INS, ModelFile
from .shield import shield_float_layers
from .to_onnx import attach_spec, save_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx

    from cclseg.frame import FloatArray
    from cclseg.spec import ModelSpec

    from .calibrate import Ranges
    from .material import Material
    from .options import ExportOptions
    from .targets import Target

_BIAS_TILES = 32
"""Tiles for the correction of the logits' bias."""


class Int8Writer:
    """Writes one network in INT8.

    What only depends on the network is computed once, because a search writes many mixtures.

    Attributes:
        model: The fp32 model.
        spec: What it says of itself.
        ranges: Of the calibration.
        tiles: Network inputs of the calibration, each (1, C, H, W) float32.
        correction: The same of images that the network has not learned, for the bias of the
            logits; without any, ``tiles`` serve.
        half: Compute in 16 bits what is not in 8, in files for TensorRT.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        spec: ModelSpec,
        ranges: Ranges,
        tiles: Sequence[FloatArray],
        *,
        correction: Sequence[FloatArray] = (),
        half: bool = False,
    ) -> None:
        self.model = model
        self.spec = spec
        self.ranges = ranges
        self.tiles = tiles
        self.half = half
        self._bias_tiles = spread_evenly(correction or tiles, _BIAS_TILES)
        self._expected = sampled_logits(model, self._bias_tiles)
        self._corrected: tuple[tuple[str, ...], onnx.ModelProto] | None = None

    def write(self, target: Target, kept: tuple[str, ...]) -> onnx.ModelProto:
        """Returns the quantised model with its spec.

        Args:
            target: Where it shall run.
            kept: Nodes that stay in floating point.
        """
        quantized = emit(
            self._with_bias(kept),
            self.ranges,
            target=target,
            keep_float=kept,
            half=self.half and target in STAND_INS,
        )
        attach_spec(quantized, dataclasses.replace(self.spec, precision="int8"))
        return quantized

    def _with_bias(self, kept: tuple[str, ...]) -> onnx.ModelProto:
        """Returns the fp32 model whose logits' bias makes up for the rounding errors.

        Those of the CPU form count for every target: all of them share one calibration, and that
        form runs everywhere. The last mixture is remembered, for its next target.
        """
        if self._corrected is None or self._corrected[0] != kept:
            uncorrected = emit(self.model, self.ranges, target="cpu", keep_float=kept)
            corrected = correct_bias(
                self.model, uncorrected, self._bias_tiles, expected=self._expected
            )
            self._corrected = (kept, corrected)
        return self._corrected[1]


def calibrated_writer(
    model: onnx.ModelProto, spec: ModelSpec, material: Material, options: ExportOptions
) -> Int8Writer:
    """Calibrates a network on the tiles of an export.

    Args:
        model: The fp32 model.
        spec: What it says of itself.
        material: Holds the tiles; INT8 always comes with some.
        options: The method, and whether the rest is in 16 bits.
    """
    assert material.calibration is not None, "INT8 always comes with tiles"
    tiles = material.calibration.tiles
    ranges = calibrate(
        model, tiles, spec=spec, method=options.method, percentile=options.percentile
    )
    return Int8Writer(model, spec, ranges, tiles, correction=material.unseen, half=options.fp16)


def spread_evenly(tiles: Sequence[FloatArray], most: int) -> list[FloatArray]:
    """Returns at most so many of the tiles, spread evenly over all of them."""
    picked = np.linspace(0, len(tiles) - 1, min(most, len(tiles))).round().astype(int)
    return [tiles[index] for index in picked]


def runnable_here(model: onnx.ModelProto, target: Target) -> onnx.ModelProto:
    """Returns a model that computes in ONNX Runtime what its target makes of it."""
    if target not in STAND_INS:
        return model
    stand_in = runnable_anywhere(model)
    shield_float_layers(stand_in)
    return stand_in


def saved_file(
    path: Path,
    model: onnx.ModelProto,
    *,
    precision: str,
    target: Target = "cpu",
    kept_float: tuple[str, ...] = (),
) -> ModelFile:
    """Saves a model, and what stands in for it where its target is another machine."""
    save_model(model, path)
    stand_in = None
    if target in STAND_INS:
        stand_in = path.with_suffix(".stand-in.onnx")
        save_model(runnable_here(model, target), stand_in)
    return ModelFile(
        path=path, precision=precision, target=target, kept_float=kept_float, stand_in=stand_in
    )
