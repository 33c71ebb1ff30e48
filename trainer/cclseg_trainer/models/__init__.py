"""Networks: blocks, encoders and fusion, the architectures built from them, and their variants."""

from __future__ import annotations

from ..model_config import CCLConfig, ModelConfig
from .ccl import CCLNet
from .cost import Cost, cost_of
from .network import NetworkOutput, SegmentationNetwork
from .quantized import QuantizedNetwork
from .registry import VARIANTS, build_model, config_from_dict, config_to_dict, find_variant

__all__ = [
    "VARIANTS",
    "CCLConfig",
    "CCLNet",
    "Cost",
    "ModelConfig",
    "NetworkOutput",
    "QuantizedNetwork",
    "SegmentationNetwork",
    "build_model",
    "config_from_dict",
    "config_to_dict",
    "cost_of",
    "find_variant",
]
