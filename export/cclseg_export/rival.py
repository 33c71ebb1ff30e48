"""What training with quantisation has to beat: INT8 made from its origin without any training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .int8 import calibrated_writer, saved_file

if TYPE_CHECKING:
    from pathlib import Path

    from .gate import ModelFile, Verdict
    from .material import Material
    from .options import ExportOptions
    from .origin import Origin


def has_rival(origin: Origin, reference: Origin | None) -> bool:
    """Tells whether a network was trained with quantisation, from a checkpoint that is known."""
    return (
        reference is not None
        and reference.checkpoint is not None
        and origin.checkpoint is not None
        and origin.checkpoint.train_config.quantize
    )


def write_rival(
    reference: Origin,
    material: Material,
    options: ExportOptions,
    *,
    kept: tuple[str, ...],
    folder: Path,
) -> ModelFile:
    """Writes the rival for the first target, with the same layers in floating point.

    Args:
        reference: What the network was trained from.
        material: The tiles that the network is calibrated on as well.
        options: What was asked for.
        kept: Nodes that stay in floating point; those that the reference lacks are left out.
        folder: Where it is written.
    """
    model = reference.to_fp32(keep_operator=options.keep_operator)
    nodes = {node.name for node in model.graph.node}
    kept = tuple(name for name in kept if name in nodes)
    writer = calibrated_writer(model, reference.spec, material, options)
    target = options.targets[0]
    return saved_file(
        folder / f"{reference.spec.name}.untrained.int8.onnx",
        writer.write(target, kept),
        precision="int8",
        target=target,
        kept_float=kept,
    )


def beaten_by(verdict: Verdict, rival: Verdict, reference: Origin) -> str | None:
    """Says why a file is not worth its training: the rival meets the budget and is no worse.

    Args:
        verdict: Of an INT8 file trained with quantisation.
        rival: Of the file made from its origin without training, on the same images.
        reference: The origin.
    """
    common = verdict.parity.keys() & rival.parity.keys()
    if rival.rejected or not common:
        return None
    own, other = (
        float(np.mean([v.parity[name].miou for name in common])) for v in (verdict, rival)
    )
    if own > other:
        return None
    return (
        f"INT8 made from {reference.path.name} without training has a mean IoU of {other:.4f}, "
        f"this one {own:.4f}; both are within the budget: export {reference.path.name} itself"
    )
