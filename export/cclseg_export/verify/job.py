"""The job of ``cclseg verify``: a model and images in, a report out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from cclseg.backends.base import check_interface
from cclseg.errors import InputError
from cclseg.image_files import read_image
from cclseg.models import find_model
from cclseg.onnx_file import load_onnx, spec_of
from cclseg.preprocess import Normaliser, default_channels
from cclseg.trust import vetted

from ..emulate import runnable_anywhere
from ..operator import correlation_nodes
from .compare import compare
from .libraries import REFERENCE, find_variants

if TYPE_CHECKING:
    from pathlib import Path

    from cclseg.frame import FloatArray
    from cclseg.spec import ModelSpec

    from .figures import Comparison, Tolerance

Infer = Callable[["FloatArray"], "FloatArray"]


@dataclass(frozen=True, slots=True)
class Verification:
    """What was compared, and how it came out.

    Attributes:
        model: The file.
        images: The files.
        tolerance: What counted as equal.
        comparison: The figures.
        absent: Why ways to run the network are not among them, by name.
    """

    model: Path
    images: tuple[Path, ...]
    tolerance: Tolerance
    comparison: Comparison
    absent: Mapping[str, str]

    @property
    def agrees(self) -> bool:
        """Whether all that could be run computes the same."""
        return self.comparison.agrees(self.tolerance)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain JSON types; None stands for what is no finite number."""
        content = {
            "model": str(self.model),
            "images": [str(path) for path in self.images],
            "tolerance": dataclasses.asdict(self.tolerance),
            "reference": REFERENCE,
            "agrees": self.agrees,
            "variants": {
                name: {**dataclasses.asdict(outcome), "agrees": outcome.agrees(self.tolerance)}
                for name, outcome in self.comparison.outcomes.items()
            },
            "absent": dict(self.absent),
        }
        finite: dict[str, Any] = _finite(content)
        return finite


def verify_model(
    model: str | Path,
    images: Sequence[Path],
    *,
    tolerance: Tolerance,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Runs images through every library of this machine.

    Args:
        model: Bundled name, ONNX file or checkpoint.
        images: Image files; the tile in the middle of each is taken.
        tolerance: What counts as equal.
        progress: Called with the number of layers behind and of all.

    Raises:
        InputError: The model is of another kind, or an image does not fit it.
        BackendError: The model is damaged, or the reference cannot run it.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    path = find_model(model)
    with ExitStack() as stack:
        network, spec, others = _opened(stack.enter_context(vetted(path)), stack)
        tiles = [_tile(image, spec) for image in images]
        variants, absent = find_variants(has_operator=bool(correlation_nodes(network)))
        comparison = compare(
            network, tiles, variants, tolerance=tolerance, others=others, progress=progress
        )
    return Verification(path, tuple(images), tolerance, comparison, absent)


def _opened(path: Path, stack: ExitStack) -> tuple[onnx.ModelProto, ModelSpec, dict[str, Infer]]:
    """Returns the network as ONNX, its spec, and further ways to compute its logits."""
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        content, source = load_onnx(path)
        spec = spec_of(path, content)
        check_interface(path, spec, content.inputs, content.outputs)
        network = onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)
        if correlation_nodes(network) and not network.functions:  # written for a plug-in
            network = runnable_anywhere(network)
        return network, spec, {}
    if suffix == ".pt":
        from cclseg_trainer.backend import TorchBackend
        from cclseg_trainer.checkpoint import load_checkpoint

        from ..to_onnx import to_onnx

        backend = stack.enter_context(TorchBackend.open(path))
        return (
            to_onnx(load_checkpoint(path), keep_operator=True),
            backend.spec,
            {"torch": lambda images: backend.infer(images).copy()},
        )
    raise InputError(
        f"cannot look into {path.name} layer by layer; expected an .onnx file or a checkpoint "
        "(.pt): verify the file that it was made from"
    )


def _tile(path: Path, spec: ModelSpec) -> FloatArray:
    """Returns the tile in the middle of an image, (1, C, H, W); small images are mirrored."""
    image = read_image(path)
    if image.dtype != np.uint8 or image.shape[2] != len(spec.bands):
        raise InputError(
            f"{path} has {image.shape[2]} bands of {image.dtype}; the model takes "
            f"{len(spec.bands)} of uint8: {', '.join(spec.bands)}"
        )
    height, width = spec.input_hw
    corner = (max((image.shape[0] - height) // 2, 0), max((image.shape[1] - width) // 2, 0))
    normaliser = Normaliser(spec)
    normaliser.load(image, channels=default_channels(spec))
    tile: FloatArray = np.empty((1, len(spec.bands), height, width), np.float32)
    normaliser.normalise(*corner, tile[0])
    return tile


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
