"""All networks: their architectures, and the variants that can be trained by name."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cclseg.errors import InputError
from cclseg.suggest import did_you_mean

from ..model_config import CCLConfig
from .bisenetv2 import BiSeNetV2, BiSeNetV2Config
from .ccl import CCLNet
from .deeplab import DeepLabConfig, DeepLabV3Plus
from .dilated import DilatedConfig, DilatedNet
from .fcn import FCN8s, FCNConfig
from .gcn import GCN, GCNConfig
from .gscnn import GatedSCNN, GatedSCNNConfig
from .hrnet import HRNet, HRNetConfig
from .linknet import LinkNet, LinkNetConfig
from .pidnet import PIDNet, PIDNetConfig
from .refinenet import RefineNetConfig, RefineNetLight
from .segformer import SegFormer, SegFormerConfig
from .segnet import SegNet, SegNetConfig
from .spanet import SPANet, SPANetConfig
from .unet import UNet, UNetConfig
from .unetformer import UNetFormer, UNetFormerConfig

if TYPE_CHECKING:
    from ..model_config import ModelConfig
    from .network import SegmentationNetwork

_CCL = "ccl"
ARCHITECTURES: dict[str, tuple[type[ModelConfig], type[SegmentationNetwork]]] = {
    _CCL: (CCLConfig, CCLNet),
    "unet": (UNetConfig, UNet),
    "linknet": (LinkNetConfig, LinkNet),
    "dilated": (DilatedConfig, DilatedNet),
    "deeplab": (DeepLabConfig, DeepLabV3Plus),
    "fcn8s": (FCNConfig, FCN8s),
    "refinenet": (RefineNetConfig, RefineNetLight),
    "gcn": (GCNConfig, GCN),
    "segnet": (SegNetConfig, SegNet),
    "pidnet": (PIDNetConfig, PIDNet),
    "segformer": (SegFormerConfig, SegFormer),
    "unetformer": (UNetFormerConfig, UNetFormer),
    "bisenetv2": (BiSeNetV2Config, BiSeNetV2),
    "hrnet": (HRNetConfig, HRNet),
    "gscnn": (GatedSCNNConfig, GatedSCNN),
    "spanet": (SPANetConfig, SPANet),
}
"""Configuration and network of each architecture, by the name that checkpoints hold."""

_TO_BE_SET = 2  # classes, until a network is made for a dataset

VARIANTS: dict[str, ModelConfig] = {
    config.name: config
    for config in (
        CCLConfig(name="ccl-nano", num_classes=_TO_BE_SET),
        CCLConfig(
            name="ccl-small",
            num_classes=_TO_BE_SET,
            widths=(24, 32, 64, 112, 192),
            blocks=(1, 1, 2, 3, 2),
            decoder_widths=(96, 64, 48),
            groups=2,
        ),
        CCLConfig(
            name="ccl-base",
            num_classes=_TO_BE_SET,
            widths=(32, 64, 96, 192, 320),
            blocks=(1, 2, 3, 5, 3),
            expansion=3,
            decoder_widths=(160, 96, 64),
            groups=4,
            radii=(2, 1, 0),
        ),
        CCLConfig(
            name="ccl-lite0",
            num_classes=_TO_BE_SET,
            encoder="lite0",
            widths=(16, 24, 40, 112, 320),
            blocks=(0, 0, 0, 0, 0),
            decoder_widths=(96, 64, 48),
            groups=2,
        ),
        CCLConfig(
            name="ccl-lite2",
            num_classes=_TO_BE_SET,
            encoder="lite2",
            widths=(16, 24, 48, 120, 352),
            blocks=(0, 0, 0, 0, 0),
            decoder_widths=(128, 80, 56),
            groups=2,
        ),
        UNetConfig(name="unet-r18", num_classes=_TO_BE_SET, encoder="resnet18"),
        UNetConfig(name="unet-lite0", num_classes=_TO_BE_SET, encoder="lite0"),
        LinkNetConfig(name="linknet-r18", num_classes=_TO_BE_SET, encoder="resnet18"),
        DilatedConfig(name="psp-lite0", num_classes=_TO_BE_SET, context="pspnet"),
        DilatedConfig(name="danet-lite0", num_classes=_TO_BE_SET, context="danet"),
        DilatedConfig(name="ema-lite0", num_classes=_TO_BE_SET, context="emanet"),
        DilatedConfig(name="ccnet-lite0", num_classes=_TO_BE_SET, context="ccnet"),
        DilatedConfig(name="ocnet-lite0", num_classes=_TO_BE_SET, context="ocnet"),
        DeepLabConfig(name="deeplab-lite0", num_classes=_TO_BE_SET),
        FCNConfig(name="fcn8s-lite0", num_classes=_TO_BE_SET),
        RefineNetConfig(name="refinenet-lite0", num_classes=_TO_BE_SET),
        GCNConfig(name="gcn-lite0", num_classes=_TO_BE_SET),
        SegNetConfig(name="segnet", num_classes=_TO_BE_SET),
        PIDNetConfig(name="pidnet-s", num_classes=_TO_BE_SET),
        SegFormerConfig(name="segformer-b0", num_classes=_TO_BE_SET),
        UNetFormerConfig(name="unetformer-lite0", num_classes=_TO_BE_SET),
        BiSeNetV2Config(name="bisenetv2", num_classes=_TO_BE_SET),
        HRNetConfig(name="hrnet-small", num_classes=_TO_BE_SET),
        GatedSCNNConfig(name="gscnn-lite0", num_classes=_TO_BE_SET),
        SPANetConfig(name="spanet-lite0", num_classes=_TO_BE_SET),
    )
}
"""The variants by name; the number of classes is set when a model is made for a dataset."""


def build_model(variant: str | ModelConfig, **changes: object) -> SegmentationNetwork:
    """Makes a network with random weights.

    Args:
        variant: Name of a variant, or a full configuration.
        **changes: Fields of its configuration that differ from the variant's.

    Raises:
        InputError: Unknown variant.
    """
    config = find_variant(variant) if isinstance(variant, str) else variant
    config = dataclasses.replace(config, **changes)  # type: ignore[arg-type]
    _, network = ARCHITECTURES[_architecture(config)]
    return network(config)  # type: ignore[call-arg]  # each takes its own kind of configuration


def find_variant(name: str) -> ModelConfig:
    """Returns the configuration of a variant.

    Raises:
        InputError: Unknown variant.
    """
    if name not in VARIANTS:
        raise InputError(f"no model '{name}'; {did_you_mean(name, VARIANTS)}")
    return VARIANTS[name]


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """Returns a configuration in the form that checkpoints hold."""
    return {"architecture": _architecture(config)} | dataclasses.asdict(config)


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """Rebuilds what :func:`config_to_dict` gave; checkpoints that name no architecture are CCL.

    Raises:
        KeyError: An architecture of another version.
        TypeError: Fields of another version.
    """
    fields: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in values.items()
    }
    config, _ = ARCHITECTURES[fields.pop("architecture", _CCL)]
    return config(**fields)


def _architecture(config: ModelConfig) -> str:
    return next(name for name, (kind, _) in ARCHITECTURES.items() if type(config) is kind)
