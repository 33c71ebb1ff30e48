"""From an image to the numbers that a network takes.

:func:`normalised` is the definition, in numpy. :class:`Normaliser` does the same for windows of an
image into memory that is reused, equal to the definition bit for bit: in one pass of a compiled
kernel straight from the caller's image, or, where none was compiled, through OpenCV and one table
of 256 values per band.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from .errors import InputError, MissingDependencyError
from .frame_kernels import FrameKernel, KernelWindow, frame_kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .frame import ChannelOrder, FloatArray, Image
    from .spec import ModelSpec

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "cv2", extra="cpu", purpose="preparing images for a network"
    ) from error

# OpenCV hands tables for 262,144 pixels and more out to threads of its own, beside those that
# compute the network.
_PIXELS_IN_ONE_THREAD = 1 << 17

_COLOUR_PLACES: dict[ChannelOrder, dict[str, int]] = {
    "bgr": {"blue": 0, "green": 1, "red": 2},
    "rgb": {"red": 0, "green": 1, "blue": 2},
}


def normalised(tile: Image, spec: ModelSpec, *, channels: ChannelOrder) -> FloatArray:
    """Returns an image as a network takes it: (value - mean) / std, bands first.

    Args:
        tile: (H, W, C) uint8.
        spec: The network's bands, means and deviations.
        channels: Order of the tile's last axis.

    Returns:
        (1, C, H, W) float32.

    Raises:
        InputError: The order cannot give the bands of the network.
    """
    bands = tile[:, :, list(channel_places(spec, channels))].astype(np.float32)
    scaled = (bands - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


def scaled(image: Image, scale: float) -> Image:
    """Returns an image made smaller, every pixel the mean of what it covers.

    Args:
        image: (H, W, C) uint8.
        scale: In (0, 1]; the result has at least one pixel.
    """
    if scale == 1:
        return image
    size_wh = [max(1, round(scale * length)) for length in image.shape[1::-1]]
    small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8).reshape(*size_wh[::-1], -1)


def reduced(image: Image, factor: int) -> Image:
    """Averages blocks of ``factor`` x ``factor`` pixels, those at the end filled up.

    Args:
        image: (H, W, C) uint8.
        factor: Side of a block in pixels.

    Returns:
        (ceil(H / factor), ceil(W / factor), C) uint8, never the memory of the image: who keeps it
        need not know what becomes of the frame.
    """
    height, width = image.shape[:2]
    if height % factor or width % factor:
        missing = ((0, -height % factor), (0, -width % factor), (0, 0))
        image = np.pad(image, missing, mode="edge")
    size_wh = (image.shape[1] // factor, image.shape[0] // factor)
    small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8).reshape(*size_wh[::-1], -1)


def default_channels(spec: ModelSpec) -> ChannelOrder:
    """Returns the order that images for a network come in: "bgr" for photographs, else "bands"."""
    return "bgr" if _colours(spec) else "bands"


def channel_places(spec: ModelSpec, channels: ChannelOrder) -> tuple[int, ...]:
    """Returns, for each band of the network, its place on an image's last axis.

    Raises:
        InputError: Unknown order, or the network's bands are not red, green and blue.
    """
    if channels == "bands":
        return tuple(range(len(spec.bands)))
    if channels not in _COLOUR_PLACES:
        raise InputError(f"channels='{channels}'; expected 'bgr', 'rgb' or 'bands'")
    colours = _colours(spec)
    if not colours:
        raise InputError(
            f"the model '{spec.name}' takes the bands {', '.join(spec.bands)}; give them in this "
            "order with channels='bands'"
        )
    return tuple(_COLOUR_PLACES[channels][colour] for colour in colours)


def _colours(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the colours of the bands; three nameless bands are taken for red, green, blue."""
    if set(spec.bands) == {"red", "green", "blue"}:
        return spec.bands
    if spec.bands == ("band1", "band2", "band3"):
        return ("red", "green", "blue")
    return ()


class Normaliser:
    """Normalises windows of one image after another for a network.

    Not to be shared between threads.

    Example:
        >>> spec = ModelSpec(name="demo", class_names=("land", "water"), input_hw=(4, 4))
        >>> normaliser = Normaliser(spec)
        >>> normaliser.load(np.zeros((6, 8, 3), np.uint8), channels="bgr")
        >>> out = np.empty((3, 4, 4), np.float32)
        >>> normaliser.normalise(2, 4, out)
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        kernel = frame_kernel()
        self._windows: _Windows = _TableWindows(spec) if kernel is None else _Kernel(kernel, spec)

    def load(self, image: Image, *, channels: ChannelOrder) -> None:
        """Takes the image whose windows come next; it must stay as it is until then.

        Args:
            image: (H, W, C) uint8.
            channels: Order of the image's last axis.

        Raises:
            InputError: The order cannot give the bands of the network.
        """
        self._windows.load(image, channel_places(self._spec, channels))

    def normalise(self, top: int, left: int, out: FloatArray) -> None:
        """Writes the window whose corner is (top, left) into ``out``.

        What lies beyond the lower and right edge of the image mirrors what lies inside, the edge
        pixel not repeated (numpy's "reflect").

        Args:
            top: First row of the window.
            left: First column of the window.
            out: (C, H, W) float32, C-contiguous; its shape gives the size of the window.
        """
        self._windows.write(top, left, out)


class _Windows(Protocol):
    """One way to normalise windows of an image."""

    def load(self, image: Image, places: Sequence[int]) -> None: ...

    def write(self, top: int, left: int, out: FloatArray) -> None: ...


class _Kernel:
    """Reads the caller's image in place."""

    def __init__(self, kernel: FrameKernel, spec: ModelSpec) -> None:
        self._kernel = kernel
        self._mean = np.asarray(spec.mean, np.float32)
        self._deviation = np.asarray(spec.std, np.float32)
        self._window: KernelWindow | None = None

    def load(self, image: Image, places: Sequence[int]) -> None:
        self._window = KernelWindow(image, places, self._mean, self._deviation)

    def write(self, top: int, left: int, out: FloatArray) -> None:
        assert self._window is not None
        self._kernel.normalise(self._window, top, left, out)


class _TableWindows:
    """Takes the channels of an image apart and looks their values up, in OpenCV."""

    def __init__(self, spec: ModelSpec) -> None:
        values = np.arange(256, dtype=np.float32)
        self._tables: list[FloatArray] = [
            (values - np.float32(mean)) / np.float32(std)
            for mean, std in zip(spec.mean, spec.std, strict=True)
        ]
        self._channels: list[Image] = []
        self._planes: list[Image] = []

    def load(self, image: Image, places: Sequence[int]) -> None:
        fits = [plane.shape for plane in self._channels] == [image.shape[:2]] * image.shape[2]
        # Fresh memory for every frame costs ten times as much as the copy itself.
        split = cv2.split(image, self._channels if fits else None)
        self._channels = [np.asarray(channel, np.uint8) for channel in split]
        self._planes = [self._channels[place] for place in places]

    def write(self, top: int, left: int, out: FloatArray) -> None:
        rows, columns = out.shape[1:]
        step = max(1, _PIXELS_IN_ONE_THREAD // columns)
        for plane, table, target in zip(self._planes, self._tables, out, strict=True):
            window = _window(plane, top, left, rows, columns)
            for row in range(0, rows, step):
                cv2.LUT(window[row : row + step], table, target[row : row + step])


def _window(plane: Image, top: int, left: int, rows: int, columns: int) -> Image:
    height, width = plane.shape
    if top + rows <= height and left + columns <= width:
        return plane[top : top + rows, left : left + columns]
    inside = plane[mirrored(top, rows, height)]
    return np.ascontiguousarray(inside[:, mirrored(left, columns, width)])


def mirrored(start: int, count: int, length: int) -> NDArray[np.intp]:
    """Returns ``count`` indices from ``start`` on, those beyond ``length`` folded back inside."""
    if length == 1:
        return np.zeros(count, np.intp)
    period = 2 * (length - 1)
    steps = np.arange(start, start + count) % period
    return np.minimum(steps, period - steps)
