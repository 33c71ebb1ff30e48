"""Edge-device inference SDK for semantic segmentation of UAV and satellite images."""

from __future__ import annotations

__version__ = "0.1.0"
