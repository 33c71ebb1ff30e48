"""Where a camera was, where it looked, and how it projects."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pose:
    """Position and attitude of a camera at the moment of a frame.

    The angles are those of DJI's XMP and of MAVLink's gimbal messages: yaw, then pitch, then roll,
    of the optical axis. A camera that looks straight down has pitch -90; the top of its image then
    points where yaw says.

    Attributes:
        latitude_deg: Degrees north, WGS 84.
        longitude_deg: Degrees east, WGS 84.
        altitude_m: Metres above mean sea level, None where it is not known.
        height_m: Metres above the ground, or above the place of take-off, None where unknown.
        yaw_deg: Degrees clockwise from true north.
        pitch_deg: Degrees above the horizon: 0 straight ahead, -90 straight down.
        roll_deg: Degrees about the optical axis, clockwise as seen from behind the camera.
    """

    latitude_deg: float
    longitude_deg: float
    altitude_m: float | None = None
    height_m: float | None = None
    yaw_deg: float | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        focal_length_px: Focal length in pixels of the image.
        image_hw: Height and width of the image in pixels; the principal point is its centre.
        model: Maker and model, empty where unknown.
    """

    focal_length_px: float
    image_hw: tuple[int, int]
    model: str = ""
