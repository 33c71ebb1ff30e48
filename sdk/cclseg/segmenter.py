"""The runtime's main object: frames in, class ids out."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from .backends.choose import open_vetted
from .closing import Closing
from .errors import InputError
from .models import find_model
from .onnx_file import read_onnx, spec_of
from .packing import Network, logits_buffer
from .sources import SourceLike, open_source
from .stream import Policy, Stream, check_policy
from .suggest import did_you_mean
from .tiled import Assembly, TileCutter
from .trust import vetted

if TYPE_CHECKING:
    from .backends.base import Backend
    from .frame import ChannelOrder, FloatArray, Image
    from .result import Segmentation
    from .sources import OnFrameError
    from .sources.live import OnEvent
    from .spec import ModelSpec

_log = logging.getLogger(__name__)

_SUPPORTED = {"device": ("auto", "cpu"), "refine": ("off",), "temporal": ("off",)}


class Segmenter(Closing):
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
        threads: Threads that compute the network, None for all processors of this process; the
            rest is done in the calling thread, in a stream by four threads of its own.
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
        self._cutter = TileCutter(self.spec)
        self._input: FloatArray = np.empty(
            (self._backend.tiles_per_call, len(self.spec.bands), *self.spec.input_hw), np.float32
        )
        self._logits = logits_buffer(self.spec, self._backend.tiles_per_call)
        self._inferring = threading.Lock()  # streams run the network in threads of their own

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
        start_ns = time.perf_counter_ns()
        plan = self._cutter.load(frame, channels=channels)
        assembly = Assembly(plan, self.spec)
        assembly.timer.add("preprocess", (time.perf_counter_ns() - start_ns) / 1e6)
        for first in range(0, len(plan.corners), len(self._input)):
            group = plan.corners[first : first + len(self._input)]
            tiles = self._input[: len(group)]
            with assembly.timer.stage("preprocess"):
                for tile, corner in zip(tiles, group, strict=True):
                    self._cutter.cut(corner, tile)
            with assembly.timer.stage("infer"):
                logits = self._logits[: len(group)]
                self._infer(tiles, logits)
            for index, tile_logits in enumerate(logits, start=first):
                assembly.add(index, tile_logits)
        result = assembly.segmentation()
        _log.debug("%d tiles of a %s frame: %s", len(plan.corners), plan.frame_hw, result.timing)
        return result

    def stream(
        self,
        source: SourceLike | Mapping[str, SourceLike],
        *,
        policy: Policy | None = None,
        on_error: OnFrameError | None = None,
        on_event: OnEvent | None = None,
    ) -> Stream:
        """Segments the frames of a source, or of several that share the network.

        Capture, preparation, inference and the rest run in threads of their own, with short queues
        between them. Several sources take turns, so that none of them starves.

        Args:
            source: What :func:`~cclseg.open_source` takes, or a source already open, which stays
                open, but a live one ends with the stream; or several of them by name, which every
                result's ``frame.stream`` tells.
            policy: What happens to frames that come too fast: "all", "latest" or "drop-oldest"
                (see :data:`cclseg.stream.Policy`); None for "all" with files and "latest" with
                live sources.
            on_error: Called, in any thread, for a frame that cannot be read or does not fit; the
                stream goes on with the next one. None ends the stream with the error.
            on_event: Called, in any thread, with what happens to a camera or stream that the text
                of ``source`` names.

        Returns:
            An iterator over the results, in the order of each source's frames.

        Raises:
            InputError: Unknown policy, or no source.
            SourceError: There is nothing of that name, or it cannot be opened.
        """
        check_policy(policy)
        named = source if isinstance(source, Mapping) else {"": source}
        if not named:
            raise InputError("the stream has no sources; give at least one")
        sources = {name: open_source(one, on_event=on_event) for name, one in named.items()}
        opened = [one for name, one in sources.items() if one is not named[name]]
        network = Network(self.spec, self._infer, self._backend.tiles_per_call)
        return Stream(network, sources, policy=policy, on_error=on_error, to_close=opened)

    def _infer(self, tiles: FloatArray, out: FloatArray) -> None:
        """Runs the network for whichever thread asks, and writes its logits into ``out``."""
        with self._inferring:
            np.copyto(out, self._backend.infer(tiles))

    def close(self) -> None:
        """Frees the network. May be called twice."""
        self._backend.close()


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
