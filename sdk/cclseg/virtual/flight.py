"""A camera that flies over a virtual scene and knows what it sees."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ._cv import cv2
from .sensor import random_sensor
from .world import World, build_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ..frame import Image
    from .plan import Points
    from .style import SceneStyle

# Focal length over the longer side of the frame: a field of view of 45 degrees.
_FOCAL_SHARE = 1.2
# World pixels per frame pixel: a little finer than the frame, so that sampling does not alias.
_OVERSAMPLING = 1.1
# Side of the scene over the diagonal of a frame, and room to turn beyond it in world pixels.
_ROOM, _TURN_PX = 1.9, 800
_MAX_WORLD_PX = 8192


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the camera is and where it looks.

    Attributes:
        x_m: Metres right of the scene's top left corner.
        y_m: Metres down from the scene's top left corner.
        altitude_m: Metres above ground.
        yaw_deg: Direction of the frame's upper edge, clockwise from the scene's.
        roll_deg: Tilt about the direction of flight; positive looks to the left.
        pitch_deg: Tilt about the wings; positive looks ahead.
    """

    x_m: float
    y_m: float
    altitude_m: float
    yaw_deg: float
    roll_deg: float = 0.0
    pitch_deg: float = 0.0


@dataclass(frozen=True, slots=True)
class VirtualFrame:
    """One picture with its truth.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        mask: (H, W) uint8 class ids, exact at pixel centres.
        pose: Of the camera.
        gsd_m: Side of a pixel on level ground straight below the camera.
        index: From 0.
        timestamp_s: Since the start of the flight.
    """

    image: Image
    mask: NDArray[np.uint8]
    pose: Pose
    gsd_m: float
    index: int
    timestamp_s: float


class VirtualFlight:
    """A flight along a smooth closed path; iterating yields its frames.

    Frames are a function of the arguments alone, byte for byte, in any order and on any number of
    threads. Rendering the scene takes seconds and happens at the first frame.

    Args:
        seed: Decides about the scene, the path and the camera.
        frames: Number of frames.
        frame_hw: Height and width of a frame, 16 px at least.
        style: What the scene looks like; None draws one.
        gsd_m: Mean ground sampling distance, 0.15 to 3.
        speed_m_s: Over ground.
        interval_s: Time between frames.

    Raises:
        InputError: An argument is out of range.

    Example:
        >>> flight = VirtualFlight(7, frames=2, frame_hw=(96, 128), gsd_m=1.0)
        >>> [frame.image.shape for frame in flight]
        [(96, 128, 3), (96, 128, 3)]
    """

    def __init__(
        self,
        seed: int,
        *,
        frames: int = 100,
        frame_hw: tuple[int, int] = (512, 512),
        style: SceneStyle | None = None,
        gsd_m: float = 0.6,
        speed_m_s: float = 25.0,
        interval_s: float = 0.4,
    ) -> None:
        self.seed = seed
        self.frames = frames
        self.frame_hw = frame_hw
        self.gsd_m = gsd_m
        self._style = style
        self.step_m = speed_m_s * interval_s
        self.interval_s = interval_s
        self._focal_px = _FOCAL_SHARE * max(frame_hw)
        self._check()
        self.sensor = random_sensor(self._rng("sensor"))

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[VirtualFrame]:
        for index in range(self.frames):
            yield self.frame(index)

    @functools.cached_property
    def world(self) -> World:
        """The scene; may be replaced by another one of the same extent before frames are taken."""
        return build_world(
            self.seed, style=self._style, size_px=self._world_px, gsd_m=self.gsd_m / _OVERSAMPLING
        )

    def frame(self, index: int) -> VirtualFrame:
        """Takes one picture.

        Args:
            index: 0 to ``frames`` - 1.

        Raises:
            InputError: There is no such frame.
        """
        if not 0 <= index < self.frames:
            raise InputError(f"frame {index} of a flight of {self.frames}; expected 0 or more")
        pose = self.poses[index]
        image, mask = self.look(pose)
        exposed = self.sensor.expose(image, self._rng("noise", index))
        gsd_m = pose.altitude_m / self._focal_px
        return VirtualFrame(exposed, mask, pose, gsd_m, index, index * self.interval_s)

    def look(self, pose: Pose) -> tuple[Image, NDArray[np.uint8]]:
        """What an ideal camera sees from a pose: (H, W, 3) uint8 BGR and (H, W) class ids."""
        size_wh = self.frame_hw[::-1]
        matrix, border = self._ground_of_pixel(pose), cv2.BORDER_REFLECT_101
        image: Image = cv2.warpPerspective(
            self.world.image,
            matrix,
            size_wh,
            flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR,
            borderMode=border,
        )
        mask: NDArray[np.uint8] = cv2.warpPerspective(
            self.world.label,
            matrix,
            size_wh,
            flags=cv2.WARP_INVERSE_MAP | cv2.INTER_NEAREST,
            borderMode=border,
        )
        return image, mask

    def motion(self, index: int) -> Points:
        """How the ground moves from one frame to the next.

        Args:
            index: 1 to ``frames`` - 1.

        Returns:
            (3, 3) homography from pixels (x, y) of that frame to those of the frame before.
        """
        before, now = (self._ground_of_pixel(self.poses[i]) for i in (index - 1, index))
        return np.asarray(np.linalg.inv(before) @ now)

    @functools.cached_property
    def poses(self) -> tuple[Pose, ...]:
        """Of all frames: a loop at constant speed, with slow changes of height and attitude."""
        rng = self._rng("path")
        extent_m = self._world_px * self.gsd_m / _OVERSAMPLING
        loop = _closed_path(
            rng, extent_m, margin_m=0.6 * float(np.hypot(*self.frame_hw)) * self.gsd_m
        )
        along_m = np.arange(self.frames, dtype=np.float64) * self.step_m
        x, y, yaw = _at(loop, along_m)
        sway = [_sway(rng, along_m) for _ in range(4)]
        altitude = self._focal_px * self.gsd_m * (1 + 0.09 * sway[0])
        yaw_deg = np.rad2deg(yaw) + 4 * sway[1]
        columns = (x, y, altitude, yaw_deg, 2.0 * sway[2], 1.5 * sway[3])
        return tuple(Pose(*(float(v) for v in row)) for row in zip(*columns, strict=True))

    @property
    def _world_px(self) -> int:
        side = _ROOM * float(np.hypot(*self.frame_hw)) * _OVERSAMPLING + _TURN_PX
        return int(np.ceil(side / 64)) * 64

    def _ground_of_pixel(self, pose: Pose) -> Points:
        """(3, 3) homography from pixels of the frame to pixels of the scene."""
        height, width = self.frame_hw
        focal = self._focal_px
        ray = np.array(
            [
                [1 / focal, 0, -(width - 1) / 2 / focal],
                [0, 1 / focal, -(height - 1) / 2 / focal],
                [0, 0, 1],
            ]
        )
        turn = _rotation(pose)
        ground = np.array(
            [[pose.altitude_m, 0, pose.x_m], [0, pose.altitude_m, pose.y_m], [0, 0, 1]]
        )
        to_px = np.diag([1 / self.world.gsd_m, 1 / self.world.gsd_m, 1.0])
        to_px[:2, 2] = -0.5
        return np.asarray(to_px @ ground @ turn @ ray)

    def _rng(self, purpose: str, index: int = 0) -> np.random.Generator:
        """Independent randomness for each purpose and frame."""
        domain = {"path": 1, "sensor": 2, "noise": 3}[purpose]
        return np.random.default_rng((self.seed, domain, index))

    def _check(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; expected a whole number from 0 on")
        if self.frames < 1:
            raise InputError(f"frames is {self.frames}; expected at least 1")
        if min(self.frame_hw) < 16 or self._world_px > _MAX_WORLD_PX:
            raise InputError(
                f"frame_hw is {self.frame_hw}; expected sides from 16 px and a diagonal up to "
                f"{int((_MAX_WORLD_PX - _TURN_PX) / _ROOM / _OVERSAMPLING)} px"
            )
        if not 0.15 <= self.gsd_m <= 3:
            raise InputError(f"gsd_m is {self.gsd_m}; expected 0.15 to 3 metres")
        if not (self.step_m > 0 and self.interval_s > 0):
            raise InputError(
                f"the camera moves {self.step_m} m in {self.interval_s} s between frames; "
                "expected a positive speed_m_s and interval_s"
            )


def _rotation(pose: Pose) -> Points:
    """(3, 3) from camera axes (right, back, down) to the scene's (right, down the map, down)."""
    yaw, roll, pitch = np.deg2rad([pose.yaw_deg, pose.roll_deg, pose.pitch_deg])
    cy, sy, cr, sr, cp, sp = (f(a) for a in (yaw, roll, pitch) for f in (np.cos, np.sin))
    heading = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    bank = np.array([[cr, 0, -sr], [0, 1, 0], [sr, 0, cr]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return np.asarray(heading @ bank @ nod)


def _closed_path(rng: np.random.Generator, extent_m: float, *, margin_m: float) -> Points:
    """A smooth loop around the middle of the scene: (n, 2) points some metres apart."""
    reach = max(extent_m / 2 - margin_m, 1.0)
    angle = np.linspace(0, 2 * np.pi, 1441)
    radius = np.ones_like(angle)
    for lobe in (2, 3, 5):
        height, phase = rng.uniform(-0.3, 0.3) / np.sqrt(lobe), rng.uniform(0, 2 * np.pi)
        radius = radius + height * np.cos(lobe * angle + phase)
    radius = radius * (reach / radius.max())
    direction = 1 if rng.random() < 0.5 else -1
    start = rng.uniform(0, 2 * np.pi)
    turned = start + direction * angle
    circle = np.stack([np.cos(turned), np.sin(turned)], axis=1)
    return np.asarray(extent_m / 2 + radius[:, None] * circle)


def _at(loop: Points, along_m: NDArray[np.float64]) -> tuple[Points, Points, Points]:
    """Position and heading (clockwise from up) at distances along a loop."""
    steps = np.diff(loop, axis=0)
    mileage = np.concatenate([[0.0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])
    place = np.mod(along_m, mileage[-1])
    x, y = (np.interp(place, mileage, loop[:, axis]) for axis in (0, 1))
    ahead = np.mod(place + 1.0, mileage[-1])
    dx, dy = (np.interp(ahead, mileage, loop[:, a]) - here for a, here in ((0, x), (1, y)))
    return x, y, np.arctan2(dx, -dy)


def _sway(rng: np.random.Generator, along_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """A slow quasi-periodic change within [-1, 1]."""
    total = np.zeros_like(along_m)
    for length_m, share in ((420.0, 0.6), (157.0, 0.4)):
        total += share * np.sin(2 * np.pi * along_m / length_m + rng.uniform(0, 2 * np.pi))
    return total
