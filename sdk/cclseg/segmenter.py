"""The runtime's main object: frames in, class ids out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .backends.choose import open_vetted
from .errors import InputError
from .handover import prefetched
from .models import find_model
from .onnx_file import read_onnx, spec_of
from .postprocess import class_ids
from .preprocess import Normaliser, channel_places, default_channels
from .profiling import StageTimer
from .result import Segmentation
from .sources import Source, open_source
from .suggest import did_you_mean
from .tiling import Blender, TilePlan, plan_tiles
from .trust import vetted

if TYPE_CHECKING:
    from .backends.base import Backend
    from .frame import ChannelOrder, FloatArray, Image
    from .spec import ModelSpec

_log = logging.getLogger(__name__)

_SUPPORTED = {"device": ("auto", "cpu"), "refine": ("off",), "temporal": ("off",)}
_FRAMES_AHEAD = 2


class Segmenter:
    """Segments frames of any size with one network.

    A frame larger than the network's input is cut into overlapping tiles, whose logits are blended
    before every pixel gets its class. Several segmenters may live in one process; one is not to be
    shared between threads without a lock of the caller's.

    Args:
        model: Name of a bundled model, or path of a model file (.onnx, .xml, or what an installed
            plug-in loads).
        backend: "auto" measures the installed libraries on this model and takes the fastest.
        device: Where to compute; "auto" and "cpu" are the same in this version.
        precision: "auto" takes the model as it is; any other value must be the model's own.
        tile: Side or (height, width) of a tile in pixels, for models whose input size is open.
        overlap: Share of a tile that neighbouring tiles have in common, None for the model's own.
        refine: "off"; others come with later versions.
        temporal: "off"; others come with later versions.
        threads: Threads of one inference, None for all processors of this process.
        spec: Used instead of what the file says of itself; needed for files without metadata.

    Raises:
        InputError: An argument is unknown or out of range.
        SpecError: The model does not describe itself, or the spec contradicts it.
        BackendError: The model cannot be loaded.
        UntrustedModelError: This device does not load it; see :mod:`cclseg.trust`.
        MissingDependencyError: No library that could run it is installed.

    Example:
        >>> with Segmenter("ccl-lite0") as segment:  # doctest: +SKIP
        ...     out = segment(cv2.imread("photo.jpg"))
        >>> out.mask.shape == photo.shape[:2]  # doctest: +SKIP
        True
    """

    def __init__(  # noqa: PLR0913 - the public contract; every one has a default
        self,
        model: str | Path = "ccl-lite0",
        *,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        tile: int | tuple[int, int] | None = None,
        overlap: float | None = None,
        refine: Literal["off"] = "off",
        temporal: Literal["off"] = "off",
        threads: int | None = None,
        spec: ModelSpec | None = None,
    ) -> None:
        _check_supported(device=device, refine=refine, temporal=temporal)
        path = find_model(model)
        with vetted(path) as loadable:
            if tile is not None:
                spec = _with_tile(spec or _spec_in(loadable, path, backend), tile)
            network = open_vetted(
                loadable, origin=path, backend=backend, spec=spec, threads=threads
            )
        self._use(network, overlap=overlap)
        _check_precision(precision, self.spec)

    @classmethod
    def from_backend(cls, backend: Backend, *, overlap: float | None = None) -> Segmenter:
        """Makes a segmenter around a network that is already open, which it then owns.

        Args:
            backend: The network; closed with the segmenter.
            overlap: Share of a tile that neighbouring tiles have in common, None for the model's.
        """
        segmenter = cls.__new__(cls)
        segmenter._use(backend, overlap=overlap)
        return segmenter

    def _use(self, backend: Backend, *, overlap: float | None) -> None:
        self._backend = backend
        self.spec = backend.spec
        if overlap is not None:
            self.spec = _with_overlap(self.spec, overlap)
        self._normaliser = Normaliser(self.spec)
        self._input: FloatArray = np.empty(
            (self._backend.tiles_per_call, len(self.spec.bands), *self.spec.input_hw), np.float32
        )
        self._plan: TilePlan | None = None

    @property
    def backend(self) -> str:
        """Name of the library that runs the network."""
        return self._backend.name

    @property
    def device(self) -> str:
        """Where the network runs."""
        return self._backend.device

    def __call__(self, frame: Image, *, channels: ChannelOrder | None = None) -> Segmentation:
        """Segments one frame.

        Args:
            frame: (H, W, C) uint8, C-contiguous or not; three channels in OpenCV order (BGR).
            channels: Order of the frame's last axis where it is another: "rgb", or "bands" for
                the order of ``spec.bands``.

        Returns:
            The frame's classes; it owns its arrays.

        Raises:
            InputError: The frame does not fit the network; says what to do.
            BackendError: The library failed.
        """
        channels = channels or default_channels(self.spec)
        _check_frame(frame, self.spec, channels)
        timer = StageTimer()
        plan = self._planned(frame.shape[:2])
        with timer.stage("preprocess"):
            self._normaliser.load(frame, channels=channels)
        blender = Blender(plan, num_classes=self.spec.num_classes)
        corners = plan.corners
        for first in range(0, len(corners), len(self._input)):
            group = corners[first : first + len(self._input)]
            tiles = self._input[: len(group)]
            with timer.stage("preprocess"):
                for tile, (top, left) in zip(tiles, group, strict=True):
                    self._normaliser.normalise(top, left, tile)
            with timer.stage("infer"):
                logits = self._backend.infer(tiles)
            with timer.stage("blend"):
                for index, tile_logits in enumerate(logits, start=first):
                    blender.add(index, tile_logits)
        with timer.stage("postprocess"):
            mask = class_ids(blender.canvas, stride=plan.stride, size_hw=plan.frame_hw)
        _log.debug("%d tiles of a %s frame: %s", len(corners), plan.frame_hw, timer.ms)
        return Segmentation(mask, blender.canvas, self.spec, timing=timer.ms)

    def stream(
        self, source: str | Path | Source, *, policy: Literal["all"] = "all"
    ) -> Iterator[Segmentation]:
        """Segments the frames of a source one after another, decoding ahead in a thread.

        Args:
            source: What :func:`~cclseg.open_source` takes, or a source already open.
            policy: "all" segments every frame; live sources and their policies come later.

        Yields:
            One result per frame, in order; its ``frame`` is the frame.

        Raises:
            InputError: Unknown policy, or a frame that cannot be read or does not fit.
            SourceError: The source cannot be read.
        """
        if policy != "all":
            raise InputError(
                f"policy='{policy}' is for live sources, which this version does not read; "
                "use policy='all'"
            )
        return self._streamed(source)

    def _streamed(self, source: str | Path | Source) -> Iterator[Segmentation]:
        opened = source if isinstance(source, Source) else open_source(source)
        with opened, closing(prefetched(opened.frames(), ahead=_FRAMES_AHEAD)) as frames:
            for frame in frames:
                result = self(frame.image)
                result.frame = frame
                yield result

    def close(self) -> None:
        """Frees the network. May be called twice."""
        self._backend.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _planned(self, frame_hw: tuple[int, ...]) -> TilePlan:
        """Returns the plan for a frame size; that of the last frame is kept."""
        height, width = frame_hw
        if self._plan is None or self._plan.frame_hw != (height, width):
            self._plan = plan_tiles(
                (height, width),
                self.spec.input_hw,
                overlap=self.spec.overlap,
                stride=self.spec.output_stride,
            )
        return self._plan


def _check_supported(**arguments: str) -> None:
    for name, value in arguments.items():
        if value not in _SUPPORTED[name]:
            raise InputError(
                f"{name}='{value}' is not supported by this version; "
                f"{did_you_mean(value, _SUPPORTED[name])}"
            )


def _check_precision(precision: str, spec: ModelSpec) -> None:
    if precision not in ("auto", spec.precision):
        raise InputError(
            f"precision='{precision}', but the model '{spec.name}' is {spec.precision}; use "
            "precision='auto' or a file exported in that precision"
        )


def _spec_in(path: Path, origin: Path, backend: str) -> ModelSpec:
    """Returns what a model file says of itself."""
    if path.suffix.lower() == ".onnx":
        return spec_of(path, read_onnx(path))
    with open_vetted(path, origin=origin, backend=backend) as opened:
        return opened.spec


def _with_tile(spec: ModelSpec, tile: int | tuple[int, int]) -> ModelSpec:
    height, width = (tile, tile) if isinstance(tile, int) else tile
    if min(height, width) < 1 or height % spec.output_stride or width % spec.output_stride:
        raise InputError(
            f"tile={tile}; expected one side or (height, width) in pixels, multiples of the "
            f"model's output stride {spec.output_stride}"
        )
    return dataclasses.replace(spec, input_hw=(height, width))


def _with_overlap(spec: ModelSpec, overlap: float) -> ModelSpec:
    if not 0 <= overlap <= 0.9:
        raise InputError(f"overlap={overlap}; expected a share of the tile in 0..0.9")
    return dataclasses.replace(spec, overlap=overlap)


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
