"""The runtime's main object: frames in, class ids out."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from .backends.choose import open_vetted
from .closing import Closing
from .device_frames import DeviceFrames
from .errors import CudaError, InputError, MissingDependencyError
from .gpu.arrays import on_host
from .levels import LevelChooser, LevelRun, Regime, declared_levels, full_level
from .models import find_model, smaller_model
from .onnx_file import read_onnx, spec_of
from .packing import Network
from .sources import SourceLike, open_source
from .stream import Policy, Stream, check_policy
from .suggest import did_you_mean
from .symmetries import SYMMETRIES, averaged
from .tiled import check_frame
from .trust import vetted

if TYPE_CHECKING:
    from .backends.base import Backend
    from .frame import ChannelOrder, FloatArray, ImageLike
    from .packing import Level
    from .refinement import Refine
    from .result import Segmentation
    from .sources import OnFrameError
    from .sources.live import OnEvent
    from .spec import ModelSpec
    from .symmetries import Tta

_log = logging.getLogger(__name__)

_SUPPORTED: dict[str, tuple[str, ...]] = {
    "device": ("auto", "cpu"),
    "refine": ("off", "fast", "full"),
    "temporal": ("off", "smooth"),
    "tta": tuple(SYMMETRIES),
}


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
        refine: "fast" and "full" sharpen each result along the edges of the image, where the
            network is unsure or everywhere, in the thread of the caller or of the stream
            (:mod:`cclseg.refinement`).
        temporal: "smooth" takes the frames for consecutive ones of one camera and lets each result
            take over a share of the last one, where both see the same (:mod:`cclseg.temporal`).
        threads: Threads that compute the network, None for all processors of this process; the
            rest is done in the calling thread, in a stream by four threads of its own.
        budget_ms: What a frame may take from pixels to mask; 99 of 100 keep to it wherever one of
            :attr:`levels` can. None for as long as it takes.
        tta: "flips" and "d4" average the network over four and eight positions of every tile, at
            four and eight times the work (:mod:`cclseg.symmetries`).
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
        refine: Refine = "off",
        temporal: Literal["off", "smooth"] = "off",
        threads: int | None = None,
        budget_ms: float | None = None,
        tta: Tta = "none",
        spec: ModelSpec | None = None,
    ) -> None:
        _check_supported(device=device, refine=refine, temporal=temporal, tta=tta)
        path = find_model(model)
        with vetted(path) as loadable:
            if tile is not None:
                spec = _with_tile(spec or _spec_in(loadable, path, backend), tile)
            network = open_vetted(
                loadable, origin=path, backend=backend, spec=spec, threads=threads
            )
        networks = [network]
        smaller = smaller_model(model) if budget_ms is not None and spec is None else None
        if smaller is not None:
            with vetted(smaller) as loadable:
                networks.append(
                    open_vetted(loadable, origin=smaller, backend=backend, threads=threads)
                )
        networks = [averaged(each, tta) for each in networks]
        self._use(*networks, overlap=overlap, temporal=temporal, budget_ms=budget_ms, refine=refine)
        _check_precision(precision, self.spec)

    @classmethod
    def from_backend(
        cls,
        backend: Backend,
        *,
        overlap: float | None = None,
        temporal: Literal["off", "smooth"] = "off",
        budget_ms: float | None = None,
        refine: Refine = "off",
    ) -> Segmenter:
        """Makes a segmenter around a network that is already open, which it then owns.

        Args:
            backend: The network; closed with the segmenter.
            overlap: Share of a tile that neighbouring tiles have in common, None for the model's.
            temporal: As for :class:`Segmenter`.
            budget_ms: As for :class:`Segmenter`.
            refine: As for :class:`Segmenter`.
        """
        _check_supported(temporal=temporal, refine=refine)
        segmenter = cls.__new__(cls)
        segmenter._use(
            backend, overlap=overlap, temporal=temporal, budget_ms=budget_ms, refine=refine
        )
        return segmenter

    def _use(
        self,
        *backends: Backend,
        overlap: float | None,
        temporal: str,
        budget_ms: float | None,
        refine: Refine,
    ) -> None:
        """Takes over a network, and a smaller one behind it where there is one."""
        self._backends = backends
        self._backend = backends[0]
        self.spec = self._backend.spec
        if overlap is not None:
            self.spec = _with_overlap(self.spec, overlap)
        one_at_a_time = threading.Lock()  # streams run networks in threads of their own
        self._inferring = one_at_a_time
        on_host = temporal != "off" or budget_ms is not None or refine != "off"
        self._device_frames = None if on_host else _frames_on_gpu(self._backend, self.spec)
        if on_host and self._backend.on_gpu is not None:
            text = "temporal=, budget_ms= and refine= prepare frames on the processor, not the GPU"
            _log.warning(text)
        networks = [
            Network(
                spec,
                partial(_submit, backend, one_at_a_time),
                backend.tiles_per_call,
                backend.calls_in_flight,
                submit_frame=None if self._device_frames is None else self._submit_frame,
            )
            for backend, spec in zip(
                backends, (self.spec, *(other.spec for other in backends[1:])), strict=True
            )
        ]
        self._network, *smaller = networks
        if budget_ms is None:
            levels: tuple[Level, ...] = (full_level(self._network),)
        else:
            levels = declared_levels(self._network, *smaller)
        self._regime = Regime(
            levels, budget_ms=budget_ms, smooth=temporal == "smooth", refine=refine
        )
        self._chooser = LevelChooser(self._regime)
        self._smoother = self._regime.smoother()
        self._runs = {level: LevelRun(level) for level in levels}

    @property
    def backend(self) -> str:
        """Name of the library that runs the network."""
        return self._backend.name

    @property
    def device(self) -> str:
        """Where the network runs."""
        return self._backend.device

    @property
    def levels(self) -> tuple[Level, ...]:
        """What the budget lets it choose among, the most accurate first; one without a budget."""
        return self._regime.levels

    def level_costs_ms(self, frame_hw: tuple[int, int]) -> dict[str, float]:
        """Returns what a frame takes at each level, measured once for each size.

        Args:
            frame_hw: Size of the frame in pixels.

        Returns:
            Milliseconds from pixels to mask by name of the level.
        """
        return self._regime.costs_ms(frame_hw)

    def __call__(self, frame: ImageLike, *, channels: ChannelOrder | None = None) -> Segmentation:
        """Segments one frame.

        With ``temporal="smooth"`` consecutive calls are consecutive frames of one camera. For
        several cameras take several segmenters, or :meth:`stream`, which keeps them apart.

        Args:
            frame: (H, W, C) uint8, C-contiguous or not; three channels in OpenCV order (BGR). An
                array of numpy or of another library (torch, CuPy, pycuda, JAX), and with a network
                on a GPU also one in its memory, which stays there.
            channels: Order of the frame's last axis where it is another: "rgb", or "bands" for
                the order of ``spec.bands``.

        Returns:
            The frame's classes; it owns its arrays.

        Raises:
            InputError: The frame does not fit the network; says what to do.
            BackendError: The library failed.
        """
        if self._device_frames is not None:
            return self._submit_frame(frame, channels=channels)()
        image = on_host(frame)
        check_frame(image, self.spec, channels)
        assert isinstance(image, np.ndarray)
        level = self._chooser.level_for(image, channels=channels)
        assembly = self._runs[level](image, channels=channels)
        result = assembly.segmentation(image, smoother=self._smoother, refiner=self._regime.refiner)
        result.level = level.name
        self._chooser.note(level, result.timing)
        tiles = len(assembly.plan.corners)
        _log.debug("%d tiles of a %s frame: %s", tiles, result.mask.shape, result.timing)
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
        return Stream(
            self._network,
            sources,
            policy=policy,
            on_error=on_error,
            to_close=opened,
            regime=self._regime,
        )

    def _submit_frame(
        self, frame: ImageLike, *, channels: ChannelOrder | None = None
    ) -> Callable[[], Segmentation]:
        """Starts a whole frame on the GPU for whichever thread asks, and lets any wait for it."""
        assert self._device_frames is not None
        with self._inferring:
            collect = self._device_frames.submit(frame, channels=channels)

        def collect_alone() -> Segmentation:
            with self._inferring:
                return collect()

        return collect_alone

    def close(self) -> None:
        """Frees the network. May be called twice."""
        for backend in self._backends:
            backend.close()


def _submit(
    backend: Backend, lock: threading.Lock, tiles: FloatArray, out: FloatArray
) -> Callable[[], None]:
    """Starts a network for whichever thread asks; see :attr:`Network.submit`."""
    if backend.calls_in_flight == 1:  # it is done at once, and nothing is allocated for it
        with lock:
            np.copyto(out, backend.infer(tiles))
        return _nothing_to_wait_for
    with lock:
        collect = backend.submit(tiles)

    def wait() -> None:
        with lock:
            np.copyto(out, collect())

    return wait


def _nothing_to_wait_for() -> None:
    """The logits are there already."""


def _frames_on_gpu(backend: Backend, spec: ModelSpec) -> DeviceFrames | None:
    """Returns what keeps frames on the network's GPU, None where it has none or lacks NVRTC."""
    if backend.on_gpu is None:
        return None
    try:
        return DeviceFrames(backend.on_gpu, spec)
    except (MissingDependencyError, CudaError) as error:
        _log.warning("frames are prepared by the processor, not by the GPU: %s", error)
        return None


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
