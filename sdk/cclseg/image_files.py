"""Reading and writing single image files, with OpenCV and, for TIFF, rasterio.

A decoder that meets a damaged file fills the rest with grey and carries on; here damage is an
error, because a mask of half an image looks like a result.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError, MissingDependencyError
from .files import write_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .frame import Mask

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "cv2", extra="cpu", purpose="reading and writing images"
    ) from error

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
RASTER_SUFFIXES = frozenset({".tif", ".tiff"})

# Beyond this many pixels an image is a scene, which is read in windows (and a decompression bomb
# in a small file must not take the machine's memory).
MAX_IMAGE_PIXELS = 1 << 28


def read_image(path: Path) -> NDArray[Any]:
    """Reads an image file as it is stored.

    Args:
        path: A JPEG, PNG, BMP, WebP or TIFF file.

    Returns:
        (H, W, C) array in the file's own type and number of channels, C >= 1. Three and four
        channels of a file other than TIFF are in OpenCV order (BGR, BGRA); TIFF bands keep the
        file's order.

    Raises:
        InputError: The file is missing, empty, damaged, too large or no image.
    """
    if path.suffix.lower() in RASTER_SUFFIXES:
        return _read_raster(path)
    data = _read_whole(path)
    pixels = _decoded(data, path)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def read_mask(path: Path) -> Mask:
    """Reads a class-id image: (H, W) uint8 or uint16.

    Raises:
        InputError: The file is no single-channel integer image, or cannot be read.
    """
    pixels = read_image(path)
    if pixels.shape[2] != 1 or pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{path} has {pixels.shape[2]} channels of {pixels.dtype}; expected a mask of one "
            "8-bit channel of class ids (colour masks must be converted first)"
        )
    return np.ascontiguousarray(pixels[:, :, 0])


def write_image(path: Path, pixels: NDArray[Any]) -> None:
    """Encodes an image by the suffix of ``path`` and writes it whole or not at all.

    Args:
        path: Target, ending in .png, .jpg or another suffix that OpenCV encodes.
        pixels: (H, W) or (H, W, C) uint8 or uint16, OpenCV order.

    Raises:
        InputError: The suffix names no image format.
        SinkError: The file cannot be written.
    """
    write_bytes(path, encode_image(pixels, path.suffix))


def encode_image(pixels: NDArray[Any], suffix: str) -> bytes:
    """Encodes an image in the format of a file suffix (".png", ".jpg").

    Raises:
        InputError: The suffix names no image format, or none for such pixels.
    """
    try:
        done, buffer = cv2.imencode(suffix, pixels)
    except cv2.error as error:
        raise InputError(
            f"cannot encode an image: no image format '{suffix}' for {pixels.dtype}; "
            "use .png or .jpg"
        ) from error
    if not done:
        raise InputError(f"cannot encode {pixels.shape} {pixels.dtype} as '{suffix}'")
    return bytes(buffer.tobytes())


def _read_whole(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    if not data:
        raise InputError(f"{path} is empty (0 bytes); copy it again")
    return data


def _decoded(data: bytes, path: Path) -> NDArray[Any]:
    if _is_truncated(data):
        raise InputError(f"{path} is cut off after {len(data)} bytes; copy it again")
    try:
        flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
        pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"cannot decode {path}: {error.err}; convert it to PNG") from error
    if pixels is None:
        raise InputError(f"{path} is not an image that can be read (JPEG, PNG, BMP, WebP, TIFF)")
    return pixels


def _is_truncated(data: bytes) -> bool:
    """Says whether the file's end mark is missing.

    JPEG: an end-of-image mark must follow the last start-of-scan mark (inside a scan 0xFF is
    always stuffed, and thumbnails lie before it). PNG: the last chunk is IEND.
    """
    if data.startswith(b"\xff\xd8"):
        return data.find(b"\xff\xd9", data.rfind(b"\xff\xda")) < 0
    if data.startswith(b"\x89PNG"):
        return data.rfind(b"IEND") < 0
    return False


def _read_raster(path: Path) -> NDArray[Any]:
    try:
        import rasterio
        from rasterio.errors import RasterioError
    except ImportError as error:
        raise MissingDependencyError.for_extra(
            "rasterio", extra="geo", purpose=f"reading {path.name}"
        ) from error
    try:
        with rasterio.open(path) as raster:
            if raster.width * raster.height > MAX_IMAGE_PIXELS:
                raise InputError(
                    f"{path} has {raster.width} x {raster.height} pixels, an image may have "
                    f"{MAX_IMAGE_PIXELS}; cut it into parts first"
                )
            bands: NDArray[Any] = raster.read()
    except RasterioError as error:
        raise InputError(f"cannot read {path}: {error}; check the file") from error
    return np.ascontiguousarray(bands.transpose(1, 2, 0))
