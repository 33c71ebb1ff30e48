"""Where an export starts: a checkpoint of the trainer, or an ONNX file of another program."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cclseg.errors import BackendError, InputError
from cclseg.files import file_sha256
from cclseg.segmenter import Segmenter
from cclseg_trainer.checkpoint import Checkpoint, load_checkpoint

from .foreign import load_foreign
from .to_onnx import attach_spec, largest_difference, to_onnx

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from cclseg.frame import FloatArray
    from cclseg.spec import ModelSpec

LARGEST_CONVERSION_ERROR = 1e-3
"""Largest logit difference between torch and ONNX, relative to the largest logit."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A network before its conversion.

    Attributes:
        path: The checkpoint or foreign file.
        spec: What the network takes and gives, the hash of ``path`` included.
        checkpoint: The checkpoint; None for a foreign file.
    """

    path: Path
    spec: ModelSpec
    checkpoint: Checkpoint | None

    def open_reference(self, *, threads: int | None, overlap: float | None = None) -> Segmenter:
        """Opens the network itself, to compare files with: in torch, or as the foreign file."""
        return Segmenter(
            self.path,
            backend="onnxruntime" if self.checkpoint is None else "torch",
            overlap=overlap,
            threads=threads,
            spec=self.spec,
        )

    def to_fp32(self, *, keep_operator: bool) -> onnx.ModelProto:
        """Converts the network.

        Args:
            keep_operator: Leave each correlation one node; foreign files stay as they are.
        """
        if self.checkpoint is None:
            model, _ = load_foreign(self.path, self.spec)
        else:
            model = to_onnx(self.checkpoint, keep_operator=keep_operator)
        attach_spec(model, self.spec)
        return model

    def conversion_error(self, model: onnx.ModelProto, tile: FloatArray) -> float | None:
        """Returns the largest logit difference to torch over the largest logit; None if foreign.

        Raises:
            BackendError: The graph does not compute what torch does.
        """
        if self.checkpoint is None:
            return None
        difference = largest_difference(self.checkpoint, model, tile)
        if not difference <= LARGEST_CONVERSION_ERROR:
            raise BackendError(
                f"the ONNX graph differs from torch by {difference:.2g} of the largest logit; "
                f"expected at most {LARGEST_CONVERSION_ERROR}; report this as a bug"
            )
        return difference


def load_origin(path: Path, *, spec: ModelSpec | None = None, license: str = "") -> Origin:
    """Reads a checkpoint or a foreign file.

    Args:
        path: A checkpoint (.pt) or an ONNX file.
        spec: Description of a foreign file; None for the file's own.
        license: SPDX identifier of the weights' licence; empty for what the source says.

    Raises:
        BackendError: The file is damaged or cannot be read.
        InputError: A spec was given for a checkpoint, which carries its own.
        SpecError: A foreign file does not describe itself.
    """
    checkpoint = None
    if path.suffix.lower() == ".onnx":
        _, spec = load_foreign(path, spec)
    elif spec is not None:
        raise InputError(f"{path} describes itself; a spec is for ONNX files of other programs")
    else:
        checkpoint = load_checkpoint(path)
        spec = checkpoint.spec
    spec = dataclasses.replace(
        spec, source_sha256=file_sha256(path), license=license or spec.license
    )
    return Origin(path, spec, checkpoint)


def load_reference(path: Path, origin: Origin) -> Origin:
    """Reads what files made from an origin are to be compared with.

    Args:
        path: A checkpoint (.pt) or an ONNX file that describes itself.
        origin: Where the files come from.

    Raises:
        BackendError: The file is damaged or cannot be read.
        InputError: It has other classes or bands, or is not what the origin was trained from.
        SpecError: A foreign file does not describe itself.
    """
    reference = load_origin(path)
    for what in ("class_names", "bands"):
        expected, got = getattr(origin.spec, what), getattr(reference.spec, what)
        if got != expected:
            raise InputError(
                f"the reference {path} has the {what.replace('_', ' ')} {', '.join(got)}, "
                f"{origin.path} {', '.join(expected)}; compare networks that do the same work"
            )
    own, other = origin.checkpoint, reference.checkpoint
    if own and other and own.train_config.quantize and own.model_config != other.model_config:
        raise InputError(
            f"{origin.path} was trained with quantisation from a {own.model_config.name}, the "
            f"reference {path} is a {other.model_config.name} of another shape; give the "
            "checkpoint that --start had"
        )
    return reference
