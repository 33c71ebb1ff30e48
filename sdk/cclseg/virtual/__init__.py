"""Virtual flights: procedural aerial scenes with exact ground truth.

Seeded and deterministic: input of the demo, data of the tests, and extra labelled data for the
trainer.
"""

from __future__ import annotations

from .classes import CLASS_NAMES, PALETTE
from .crops import CropSampler, random_crop
from .flight import Pose, VirtualFlight, VirtualFrame
from .sensor import IDEAL_SENSOR, Sensor
from .style import SceneStyle, random_style
from .world import World, build_world

__all__ = [
    "CLASS_NAMES",
    "IDEAL_SENSOR",
    "PALETTE",
    "CropSampler",
    "Pose",
    "SceneStyle",
    "Sensor",
    "VirtualFlight",
    "VirtualFrame",
    "World",
    "build_world",
    "random_crop",
    "random_style",
]
