"""A frame on its way through a network: cut into tiles, put together again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .postprocess import class_ids
from .preprocess import Normaliser, channel_places, default_channels
from .profiling import StageTimer
from .result import Segmentation
from .tiling import Blender, TilePlan, plan_tiles

if TYPE_CHECKING:
    from .frame import ChannelOrder, FloatArray, Image
    from .spec import ModelSpec


class TileCutter:
    """Cuts one frame after another into tiles that a network takes.

    Not to be shared between threads.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._normaliser = Normaliser(spec)
        self._plan: TilePlan | None = None

    def load(self, frame: Image, *, channels: ChannelOrder | None = None) -> TilePlan:
        """Takes the frame whose tiles come next; it must stay as it is until they are cut.

        Args:
            frame: (H, W, C) uint8, C-contiguous or not.
            channels: Order of the frame's last axis, None for the network's usual one.

        Raises:
            InputError: The frame does not fit the network; says what to do.
        """
        channels = channels or default_channels(self._spec)
        _check_frame(frame, self._spec, channels)
        plan = self._planned(frame.shape[:2])
        self._normaliser.load(frame, channels=channels)
        return plan

    def cut(self, corner: tuple[int, int], out: FloatArray) -> None:
        """Writes the tile at (top, left) into ``out``, (C, tile height, tile width) float32."""
        self._normaliser.normalise(*corner, out)

    def _planned(self, frame_hw: tuple[int, ...]) -> TilePlan:
        """Returns the plan for a frame size; that of the last frame is kept."""
        height, width = frame_hw
        if self._plan is None or self._plan.frame_hw != (height, width):
            self._plan = plan_tiles(
                (height, width),
                self._spec.input_hw,
                overlap=self._spec.overlap,
                stride=self._spec.output_stride,
            )
        return self._plan


class Assembly:
    """One frame's logits, tile by tile, and its classes when all are there.

    Attributes:
        plan: The frame's tiles.
        timer: Milliseconds per stage; each stage writes its own, in whatever thread it runs.
    """

    def __init__(self, plan: TilePlan, spec: ModelSpec) -> None:
        self.plan = plan
        self.timer = StageTimer()
        self._spec = spec
        self._blender = Blender(plan, num_classes=spec.num_classes)
        self._missing = len(plan.corners)

    @property
    def complete(self) -> bool:
        """Whether every tile has been added."""
        return not self._missing

    def add(self, index: int, logits: FloatArray) -> None:
        """Adds the logits of one tile.

        Args:
            index: Place of the tile in ``plan.corners``.
            logits: (K, tile height / stride, tile width / stride) float32.
        """
        with self.timer.stage("blend"):
            self._blender.add(index, logits)
        self._missing -= 1

    def segmentation(self) -> Segmentation:
        """Gives every pixel its class; the result owns its arrays."""
        plan, canvas = self.plan, self._blender.canvas
        with self.timer.stage("postprocess"):
            mask = class_ids(canvas, stride=plan.stride, size_hw=plan.frame_hw)
        return Segmentation(mask, canvas, self._spec, timing=self.timer.ms)


def _check_frame(frame: Any, spec: ModelSpec, channels: ChannelOrder) -> None:  # noqa: ANN401
    expected = f"(H, W, {len(spec.bands)}) uint8"
    if frame is None:
        raise InputError(
            f"the frame is None; expected {expected} (cv2.imread returns None for a file that it "
            "cannot read: check its path)"
        )
    if not isinstance(frame, np.ndarray):
        raise InputError(
            f"the frame is a {type(frame).__name__}; expected a numpy array {expected} "
            "(arrays on a GPU must be copied to the host in this version)"
        )
    if frame.dtype != np.uint8:
        raise InputError(
            f"the frame is {frame.dtype}; expected {expected}: scale its values to 0..255 and "
            "convert with .astype(np.uint8)"
        )
    if frame.ndim != 3 or not frame.size or frame.shape[2] != len(spec.bands):
        raise InputError(
            f"the frame is {frame.shape}; expected {expected} with {', '.join(spec.bands)}: "
            f"{_channel_advice(frame, spec)}"
        )
    channel_places(spec, channels)


def _channel_advice(frame: Image, spec: ModelSpec) -> str:
    bands = len(spec.bands)
    if not frame.size:
        return "it has no pixels"
    if bands == 3 and (frame.ndim == 2 or frame.shape[2:] == (1,)):
        return "turn grey into colour with cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)"
    if frame.ndim == 3 and bands == 3 and frame.shape[2] == 4:
        return "leave the alpha channel out with frame[:, :, :3]"
    return f"choose the {bands} bands that the model takes"
