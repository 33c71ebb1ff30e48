"""ROS 2 image messages to frames and results to image messages, without ROS.

The definitions of sensor_msgs/Image say: rows are ``step`` bytes long, of which some at the end may
be padding; ``is_bigendian`` tells the order of bytes in 16-bit pixels.
"""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .suggest import did_you_mean

if TYPE_CHECKING:
    from .frame import FloatArray, Image, Mask


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How pixels lie in a message.

    Attributes:
        channels: Numbers per pixel.
        bits: Per number.
        to_bgr: Which channels are blue, green and red.
    """

    channels: int
    bits: int
    to_bgr: tuple[int, int, int]


_BGR, _RGB, _GREY = (0, 1, 2), (2, 1, 0), (0, 0, 0)

_ENCODINGS = {
    "bgr8": _Encoding(3, 8, _BGR),
    "rgb8": _Encoding(3, 8, _RGB),
    "bgra8": _Encoding(4, 8, _BGR),
    "rgba8": _Encoding(4, 8, _RGB),
    "mono8": _Encoding(1, 8, _GREY),
    "bgr16": _Encoding(3, 16, _BGR),
    "rgb16": _Encoding(3, 16, _RGB),
    "mono16": _Encoding(1, 16, _GREY),
    # OpenCV's names, which say nothing about colours: its own order is meant.
    "8UC1": _Encoding(1, 8, _GREY),
    "8UC3": _Encoding(3, 8, _BGR),
    "8UC4": _Encoding(4, 8, _BGR),
    "16UC1": _Encoding(1, 16, _GREY),
}


@dataclass(frozen=True, slots=True)
class ImageFields:
    """The fields of a sensor_msgs/Image but the header.

    Attributes:
        height: Rows.
        width: Columns.
        encoding: What the pixels are.
        is_bigendian: 0: 16-bit pixels begin with their lower byte.
        step: Bytes per row.
        data: All rows; an array, because a message takes that as it is and checks each byte of
            anything else.
    """

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: array.array[int]


def image_of(message: Any) -> Image:  # noqa: ANN401 - a sensor_msgs/Image, or what has its fields
    """Returns the picture in a message: (H, W, 3) uint8, BGR, a copy of its own.

    Of 16-bit numbers the upper byte is kept; grey is given three times; alpha is left out.

    Raises:
        InputError: The encoding is none that can be segmented, or the sizes contradict each other.
    """
    encoding = _ENCODINGS.get(message.encoding)
    if encoding is None:
        hint = did_you_mean(message.encoding, _ENCODINGS)
        raise InputError(f"an image message is encoded as '{message.encoding}'; {hint}")
    height, width, step = int(message.height), int(message.width), int(message.step)
    row_bytes = width * encoding.channels * encoding.bits // 8
    data = np.frombuffer(message.data, np.uint8)
    if not height or not width or step < row_bytes or data.size < height * step:
        raise InputError(
            f"an image message of {width} x {height} {message.encoding} has rows of {step} bytes "
            f"and {data.size} bytes of data; expected rows of at least {row_bytes} and {height} "
            "of them"
        )
    rows = data[: height * step].reshape(height, step)[:, :row_bytes]
    pixels = rows.reshape(height, width, encoding.channels, encoding.bits // 8)
    upper = 0 if encoding.bits == 8 or message.is_bigendian else 1
    return np.ascontiguousarray(pixels[:, :, list(encoding.to_bgr), upper])


def fields_of_mask(mask: Mask) -> ImageFields:
    """Returns a mask as mono8, or mono16 beyond 255 classes."""
    encoding = "mono8" if mask.dtype == np.uint8 else "mono16"
    return _fields(mask.astype(mask.dtype.newbyteorder("<"), copy=False), encoding)


def fields_of_confidence(confidence: FloatArray) -> ImageFields:
    """Returns (H, W) probabilities as mono8: 255 is certain."""
    return _fields(np.rint(confidence * np.float32(255)).astype(np.uint8), "mono8")


def _fields(pixels: Mask, encoding: str) -> ImageFields:
    height, width = pixels.shape
    data = array.array("B")
    data.frombytes(pixels.tobytes())
    return ImageFields(height, width, encoding, 0, width * pixels.itemsize, data)
