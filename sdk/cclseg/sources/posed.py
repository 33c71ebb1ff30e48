"""Frames with the pose of the camera at the moment of each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from ..errors import InputError
from ..pose import Camera
from .base import OnFrameError, Source

if TYPE_CHECKING:
    from ..frame import Frame
    from ..pose import Pose


class Poses(Protocol):
    """What knows where the camera was; :class:`cclseg.mavlink.Telemetry` does."""

    def pose_of(self, frame: Frame) -> Pose | None:
        """Returns the pose at the time of a frame; None where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """How a camera projects, by one of two figures.

    Attributes:
        focal_px: Focal length in pixels of the frame.
        hfov_deg: Angle of view from its left to its right edge.

    Raises:
        InputError: Not exactly one of them, or out of range.
    """

    focal_px: float | None = None
    hfov_deg: float | None = None

    def __post_init__(self) -> None:
        if (self.focal_px is None) == (self.hfov_deg is None):
            raise InputError("a lens has a focal length or an angle of view; give one of them")
        if self.focal_px is not None and not 0 < self.focal_px < math.inf:
            raise InputError(f"focal_px is {self.focal_px}; expected more than 0 pixels")
        if self.hfov_deg is not None and not 0 < self.hfov_deg < 180:
            raise InputError(f"hfov_deg is {self.hfov_deg}; expected 0 to 180 degrees")

    def camera(self, size_hw: tuple[int, int]) -> Camera:
        """Returns the camera that takes frames of a size."""
        if self.focal_px is not None:
            return Camera(self.focal_px, size_hw)
        assert self.hfov_deg is not None
        return Camera(size_hw[1] / 2 / math.tan(math.radians(self.hfov_deg) / 2), size_hw)


class PosedSource(Source):
    """Another source, whose frames get poses from telemetry and a camera from a lens.

    What a frame knows by itself stays where the telemetry has nothing for it. Closing it closes the
    source, and leaves the telemetry open.

    Example:
        >>> telemetry = open_telemetry("udp://:14550")  # doctest: +SKIP
        >>> camera = PosedSource(open_source("csi://0"), telemetry)  # doctest: +SKIP
        >>> for out in segmenter.stream(camera):  # doctest: +SKIP
        ...     print(out.frame.pose)
    """

    def __init__(
        self, source: Source, poses: Poses | None = None, *, lens: Lens | None = None
    ) -> None:
        self.name, self.total, self.fps, self.live = (
            source.name, source.total, source.fps, source.live,
        )  # fmt: skip
        self._source = source
        self._poses = poses
        self._lens = lens

    def frames(self, *, on_error: OnFrameError | None = None) -> Iterator[Frame]:
        """Yields the frames in order; see :meth:`Source.frames`."""
        for frame in self._source.frames(on_error=on_error):
            pose = None if self._poses is None else self._poses.pose_of(frame)
            camera = None if self._lens is None else self._lens.camera(frame.size_hw)
            yield replace(frame, pose=pose or frame.pose, camera=camera or frame.camera)

    def interrupt(self) -> None:
        """Ends every iteration that waits; see :meth:`Source.interrupt`."""
        self._source.interrupt()

    def close(self) -> None:
        """Closes the source behind it. May be called twice."""
        self._source.close()
