"""A frame on its way through a network: cut into tiles, put together again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .gpu.arrays import DeviceView, on_host
from .postprocess import class_ids, confidence, regridded
from .preprocess import Normaliser, channel_places, default_channels, scaled
from .profiling import StageTimer
from .result import Segmentation
from .tiling import Blender, TilePlan, plan_tiles

if TYPE_CHECKING:
    from .frame import ChannelOrder, FloatArray, Image, ImageLike
    from .refinement import Refiner
    from .spec import ModelSpec
    from .temporal import TemporalSmoother


class TileCutter:
    """Cuts one frame after another into tiles that a network takes.

    Not to be shared between threads.

    Args:
        spec: What the network takes.
        overlap: Share of a tile that neighbours have in common, None for the network's own.
        scale: Size of the frame that is cut over that of the frame that is given, in (0, 1].
    """

    def __init__(self, spec: ModelSpec, *, overlap: float | None = None, scale: float = 1) -> None:
        self._spec = spec
        self._overlap = spec.overlap if overlap is None else overlap
        self._scale = scale
        self._normaliser = Normaliser(spec)
        self._plan: TilePlan | None = None

    def load(self, frame: ImageLike, *, channels: ChannelOrder | None = None) -> TilePlan:
        """Takes the frame whose tiles come next; it must stay as it is until they are cut.

        Args:
            frame: (H, W, C) uint8, C-contiguous or not, of numpy or whatever speaks DLPack.
            channels: Order of the frame's last axis, None for the network's usual one.

        Raises:
            InputError: The frame does not fit the network; says what to do.
        """
        channels = channels or default_channels(self._spec)
        image = on_host(frame)
        check_frame(image, self._spec, channels)
        assert isinstance(image, np.ndarray)
        image = scaled(image, self._scale)
        plan = self._planned(image.shape[:2])
        self._normaliser.load(image, channels=channels)
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
                overlap=self._overlap,
                stride=self._spec.output_stride,
            )
        return self._plan


class Assembly:
    """One frame's logits, tile by tile, and its classes when all are there.

    Attributes:
        plan: The frame's tiles.
        timer: Milliseconds per stage; each stage writes its own, in whatever thread it runs.

    Args:
        plan: The tiles, of the frame or of a scaled one.
        spec: What the network gives.
        frame_hw: Size of the frame in pixels, None where it is the one that was cut.
    """

    def __init__(
        self, plan: TilePlan, spec: ModelSpec, *, frame_hw: tuple[int, ...] | None = None
    ) -> None:
        self.plan = plan
        self._frame_hw = plan.frame_hw if frame_hw is None else (frame_hw[0], frame_hw[1])
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

    def segmentation(
        self,
        image: Image,
        *,
        smoother: TemporalSmoother | None = None,
        refiner: Refiner | None = None,
    ) -> Segmentation:
        """Gives every pixel its class; the result owns its arrays.

        Args:
            image: The frame.
            smoother: Blends in what was said of the frame before.
            refiner: Sharpens the result along the edges of the image.
        """
        plan, canvas = self.plan, self._blender.canvas
        if plan.frame_hw != self._frame_hw:
            with self.timer.stage("blend"):
                canvas = regridded(
                    canvas, from_hw=plan.frame_hw, to_hw=self._frame_hw, stride=plan.stride
                )
        if smoother is not None:
            with self.timer.stage("temporal"):
                smoother.smooth(image, canvas)
        scores, stride = canvas, plan.stride
        if refiner is not None:
            with self.timer.stage("refine"):
                scores, stride = refiner.refined(image, canvas)
        with self.timer.stage("postprocess"):
            mask = class_ids(scores, stride=stride, size_hw=self._frame_hw)
        sure = partial(confidence, scores, stride=stride, size_hw=self._frame_hw)
        return Segmentation(mask, canvas, self._spec, timing=self.timer.ms, confidence=sure)


def check_frame(frame: Any, spec: ModelSpec, channels: ChannelOrder | None) -> None:  # noqa: ANN401
    """Refuses what is no image for a network.

    Args:
        frame: A numpy array, or where an array lies on a GPU.
        spec: What the network says of itself.
        channels: Order of the frame's last axis, None for the network's usual one.

    Raises:
        InputError: The frame does not fit; says what to do.
    """
    expected = f"(H, W, {len(spec.bands)}) uint8"
    if frame is None:
        raise InputError(
            f"the frame is None; expected {expected} (cv2.imread returns None for a file that it "
            "cannot read: check its path)"
        )
    if not isinstance(frame, (np.ndarray, DeviceView)):
        raise InputError(
            f"the frame is a {type(frame).__name__}; expected a numpy array {expected}, or one of "
            "a library that speaks DLPack"
        )
    if frame.dtype != np.uint8:
        raise InputError(
            f"the frame is {frame.dtype}; expected {expected}: scale its values to 0..255 and "
            "convert with .astype(np.uint8)"
        )
    if len(frame.shape) != 3 or 0 in frame.shape or frame.shape[2] != len(spec.bands):
        raise InputError(
            f"the frame is {frame.shape}; expected {expected} with {', '.join(spec.bands)}: "
            f"{_channel_advice(frame.shape, spec)}"
        )
    channel_places(spec, channels or default_channels(spec))


def _channel_advice(shape: tuple[int, ...], spec: ModelSpec) -> str:
    bands = len(spec.bands)
    if 0 in shape:
        return "it has no pixels"
    if bands == 3 and (len(shape) == 2 or shape[2:] == (1,)):
        return "turn grey into colour with cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)"
    if len(shape) == 3 and bands == 3 and shape[2] == 4:
        return "leave the alpha channel out with frame[:, :, :3]"
    return f"choose the {bands} bands that the model takes"
