"""Networks: blocks, encoders and fusion, the architectures built from them, and their variants."""

from __future__ import annotations

from .ccl import CCLConfig, CCLNet
from .config import ModelConfig
from .network import NetworkOutput, SegmentationNetwork
from .quantized import QuantizedNetwork
from .registry import VARIANTS, build_model, config_from_dict, config_to_dict, find_variant

__all__ = [
    "VARIANTS",
    "CCLConfig",
    "CCLNet",
    "ModelConfig",
    "NetworkOutput",
    "QuantizedNetwork",
    "SegmentationNetwork",
    "build_model",
    "config_from_dict",
    "config_to_dict",
    "find_variant",
]
