"""What is minimised: losses of pixels, regions, edges, missing labels, hiding and teachers."""

from __future__ import annotations

from .combined import SegmentationLoss
from .pixels import class_weights
from .reconstruction import unexplained_share
from .teaching import ensemble_logits

__all__ = ["SegmentationLoss", "class_weights", "ensemble_logits", "unexplained_share"]
