"""The frame: one image on its way through the runtime, and the array types around it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .pose import Camera, Pose

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, C) uint8; three channels are in OpenCV order (blue, green, red) unless stated."""

ImageLike: TypeAlias = Any
"""An :data:`Image`, or one of another library: what has ``__dlpack__`` or
``__cuda_array_interface__``, as the arrays of torch, CuPy, JAX and pycuda."""

Mask: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W) class ids; uint8, or uint16 beyond 255 classes. The ignore value (255) means no data."""

FloatArray: TypeAlias = NDArray[np.float32]
"""float32 array: network input (N, C, H, W), logits (N, K, h, w) or confidence (H, W)."""

ChannelOrder: TypeAlias = Literal["bgr", "rgb", "bands"]
"""Order of an image's last axis; "bands" is the order of ``ModelSpec.bands``."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One image with its place in the source it came from.

    Attributes:
        image: (H, W, C) uint8, OpenCV order for three channels. The frame owns it.
        index: Number of the frame in its source, from 0.
        name: File-name stem for results, unique within the source ("DJI_0018", "frame_000042").
        timestamp_s: Seconds since the start of the source by the source's own clock, or None for
            still images.
        path: The file that the frame came from, or None for live sources.
        captured_ns: When it was captured by this machine's clock ``time.monotonic_ns``; a stream
            fills in when it got the frame where the source does not say more.
        stream: Name of the stream where several share a network, else empty.
        pose: Where the camera was and looked, None where the source does not say.
        camera: How it projects, None where the source does not say.
        captured_at: When it was captured in UTC, None where the source does not say.
    """

    image: Image
    index: int
    name: str
    timestamp_s: float | None = None
    path: Path | None = None
    captured_ns: int | None = None
    stream: str = ""
    pose: Pose | None = None
    camera: Camera | None = None
    captured_at: datetime | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]
