"""Where the pixels of a frame lie on the ground.

A pinhole camera sends a ray through every point of the image; the point lies where the ray meets
the ground. Points are in pixels from the image's upper left corner, so the corners of a frame are
(0, 0) and (width, height), and polygons of masks fit without a shift.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from .attitude import from_angles
from .errors import InputError
from .geodesy import TangentPlane

if TYPE_CHECKING:
    from .pose import Camera, Pose

Points = NDArray[np.float64]

REACH = 20.0
"""How far ahead the ground is looked for, in heights of the camera above it: what is farther away
(less than 3 degrees below the horizon) is left out, because there a degree of attitude is worth
hundreds of metres."""


class Ground(Protocol):
    """The form of the ground."""

    def hits(self, pose: Pose, rays: Points) -> Points:
        """Returns where rays from a camera meet the ground.

        Args:
            pose: Of the camera.
            rays: (n, 3) directions east, north and up of any length; all of them point down.

        Returns:
            (n, 3) metres east, north and up of the camera.

        Raises:
            InputError: The height of the camera is unknown, or the ground below it is.
        """


class FlatGround:
    """A level plane ``pose.height_m`` below the camera."""

    def hits(self, pose: Pose, rays: Points) -> Points:
        """Returns where rays meet the plane; see :meth:`Ground.hits`."""
        if pose.height_m is None or pose.height_m <= 0:
            raise InputError(
                f"the camera's height above ground is {pose.height_m}; expected more than 0 m "
                "(a terrain model, --dem, works with the altitude alone)"
            )
        return rays * (pose.height_m / -rays[:, 2:])


class GroundView:
    """The ground as one frame shows it.

    The earth is level around the camera: 1 km away it is 8 cm too high by that.

    Args:
        pose: Where the camera was and looked.
        camera: How it projects; its image may have another size of the same shape.
        size_hw: Size of the frame in pixels.
        ground: The form of the ground, None for flat.

    Raises:
        InputError: The camera's attitude is unknown, or its image has another shape.

    Example:
        >>> from cclseg.pose import Camera, Pose
        >>> down = Pose(47.0, 8.0, height_m=100.0, yaw_deg=0.0, pitch_deg=-90.0, roll_deg=0.0)
        >>> view = GroundView(down, Camera(1000.0, (720, 1280)), (720, 1280))
        >>> round(view.gsd_m, 6), round(view.area_m2(view.frame_ring()), 3)
        (0.1, 9216.0)
    """

    def __init__(
        self, pose: Pose, camera: Camera, size_hw: tuple[int, int], ground: Ground | None = None
    ) -> None:
        self.pose = pose
        self.size_hw = size_hw
        self._ground = ground or FlatGround()
        self._turn = _camera_to_earth(pose) @ _pixel_to_camera(camera, size_hw)
        self._plane = TangentPlane(pose.latitude_deg, pose.longitude_deg, pose.altitude_m or 0.0)

    def frame_ring(self) -> Points:
        """Returns (n, 2) the part of the frame's outline that shows ground, in pixels.

        It is the four corners, fewer pixels where the frame shows the horizon, and empty where it
        shows no ground at all.
        """
        height, width = self.size_hw
        return self.clipped(np.array([[0, 0], [width, 0], [width, height], [0, height]], float))

    @functools.cached_property
    def shows_horizon(self) -> bool:
        """Whether a part of the frame is no ground, or ground too far away."""
        height, width = self.size_hw
        corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]])
        return bool((corners @ self._limits.T < 0).any())

    def clipped(self, ring_xy: NDArray[np.floating] | NDArray[np.integer]) -> Points:
        """Returns (n, 2) the part of a ring in the frame that shows ground within reach.

        Sutherland's and Hodgman's algorithm: parts of a ring that fall apart stay joined along the
        cut.
        """
        ring = np.asarray(ring_xy, np.float64)
        if self.shows_horizon:
            for limit in self._limits:
                ring = cut(ring, limit)
        return ring

    def local_m(self, points_xy: Points) -> Points:
        """Returns (n, 3) metres east, north and up of the camera, of (n, 2) pixels on the ground.

        Raises:
            InputError: A pixel shows the sky, or the height of the camera or of the ground is
                unknown.
        """
        rays = np.column_stack([points_xy, np.ones(len(points_xy))]) @ self._turn.T
        if (rays[:, 2] >= 0).any():
            raise InputError("a pixel shows the sky, not the ground; cut rings with clipped()")
        return self._ground.hits(self.pose, rays)

    def lonlat(self, local_m: Points) -> Points:
        """Returns (n, 2) longitude and latitude in degrees of (n, 3) local metres."""
        latitude, longitude, _ = self._plane.geodetic(local_m)
        return np.column_stack([longitude, latitude])

    def area_m2(self, ring_xy: Points) -> float:
        """Returns the area on the map that a ring of pixels encloses; 0 for less than a ring."""
        if len(ring_xy) < 3:
            return 0.0
        east, north = self.local_m(ring_xy)[:, :2].T
        return float(abs(east @ np.roll(north, -1) - north @ np.roll(east, -1)) / 2)

    @property
    def gsd_m(self) -> float | None:
        """Side of a square on the map as large as the frame's central pixel.

        None where there is no ground within reach.
        """
        height, width = self.size_hw
        pixel = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
        central = pixel + np.array([width / 2, height / 2])
        area_m2 = self.area_m2(self.clipped(central))
        return math.sqrt(area_m2) or None

    @functools.cached_property
    def _limits(self) -> Points:
        """(2, 3): a pixel (x, y, 1) shows ground within reach where both products are >= 0.

        The planes through the camera that lie as far below the horizon as the ground ahead, and
        behind, at the end of the reach.
        """
        down = np.array([0.0, 0.0, -1.0])
        yaw = math.radians(self.pose.yaw_deg or 0.0)
        ahead = np.array([math.sin(yaw), math.cos(yaw), 0.0])
        planes = np.stack([down - ahead / REACH, down + ahead / REACH])
        return np.asarray(planes @ self._turn)


def cut(ring: Points, limit: Points) -> Points:
    """Returns the part of a ring, (n, 2), where (x, y, 1) @ limit >= 0."""
    if len(ring) == 0:
        return ring
    value = ring @ limit[:2] + limit[2]
    if (value >= 0).all():
        return ring
    following, next_value = np.roll(ring, -1, axis=0), np.roll(value, -1)
    crosses = (value >= 0) != (next_value >= 0)
    share = np.divide(value, value - next_value, out=np.zeros_like(value), where=crosses)
    crossing = ring + share[:, None] * (following - ring)
    both = np.stack([ring, crossing], axis=1)
    return np.asarray(both[np.stack([value >= 0, crosses], axis=1)])


def _camera_to_earth(pose: Pose) -> Points:
    """(3, 3) from the image's axes (right, down, ahead) to east, north, up."""
    if pose.yaw_deg is None or pose.pitch_deg is None or pose.roll_deg is None:
        raise InputError(
            f"the camera's yaw, pitch and roll are {pose.yaw_deg}, {pose.pitch_deg} and "
            f"{pose.roll_deg}; the ground can be found with all three only"
        )
    w, x, y, z = from_angles(pose.yaw_deg, pose.pitch_deg, pose.roll_deg)
    north, east, down = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    ahead, right, below = np.stack([east, north, -down], axis=1)
    return np.stack([right, below, ahead], axis=1)


def _pixel_to_camera(camera: Camera, size_hw: tuple[int, int]) -> Points:
    """(3, 3) from pixels (x, y, 1) to rays (right, down, ahead) with ahead = 1."""
    (height, width), (full_height, full_width) = size_hw, camera.image_hw
    if abs(width * full_height - height * full_width) > max(full_height, full_width):
        raise InputError(
            f"the frame has {width} x {height} pixels, the camera's image {full_width} x "
            f"{full_height}; expected the same shape (a cropped frame needs a camera of its own)"
        )
    focal_px = camera.focal_length_px * width / full_width
    return np.array([[1 / focal_px, 0, -width / 2 / focal_px],
                     [0, 1 / focal_px, -height / 2 / focal_px],
                     [0, 0, 1]])  # fmt: skip
