"""A place on the earth for virtual scenes, so that their flights have real positions."""

from __future__ import annotations

import math

import numpy as np

from ..geodesy import TangentPlane
from ..pose import Pose
from .flight import Pose as ScenePose
from .flight import rotation

CORNER = TangentPlane(47.0, 8.0)
"""The top left corner of every scene, which lies level at the height of the sea, north up."""


def geographic(pose: ScenePose) -> Pose:
    """Returns position and attitude of a camera above a scene."""
    latitude, longitude, _ = CORNER.geodetic(np.array([pose.x_m, -pose.y_m, pose.altitude_m]))
    east, south, down = rotation(pose)  # rows; the columns are the image's right, down and ahead
    right, below, ahead = np.stack([-south, east, down], axis=1)  # in north, east, down
    level = math.hypot(ahead[0], ahead[1])
    yaw = math.atan2(ahead[1], ahead[0]) if level > 1e-9 else math.atan2(-below[1], -below[0])
    return Pose(
        latitude_deg=float(latitude),
        longitude_deg=float(longitude),
        altitude_m=pose.altitude_m,
        height_m=pose.altitude_m,
        yaw_deg=math.degrees(yaw) % 360,
        pitch_deg=-math.degrees(math.atan2(ahead[2], level)),
        roll_deg=math.degrees(math.atan2(right[2], below[2])) if level > 1e-9 else 0.0,
    )
