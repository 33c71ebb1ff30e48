"""CCL networks: blocks, encoders, fusion, and the variants built from them."""

from __future__ import annotations

from .ccl import CCLNet, NetworkOutput, build_model
from .config import VARIANTS, ModelConfig

__all__ = ["VARIANTS", "CCLNet", "ModelConfig", "NetworkOutput", "build_model"]
