"""EXIF and XMP as blocks of bytes: found in JPEG, PNG and WebP, put into JPEG and PNG."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

_JPEG_EXIF, _JPEG_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_APP0, _APP1, _START_OF_SCAN, _END_OF_IMAGE = 0xE0, 0xE1, 0xDA, 0xD9
_JPEG_PAYLOAD_LIMIT = 0xFFFF - 2

_PNG_MARK = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_END = 33  # behind the first chunk, IHDR
# A text chunk's keyword, then: not compressed, no language, no translated keyword.
_PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"

_BLOCK_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PhotoTags:
    """What a photo says of itself, byte for byte.

    Attributes:
        exif: A TIFF header with its directories; empty where there is none.
        xmp: A packet of XML; empty where there is none.
    """

    exif: bytes = b""
    xmp: bytes = b""

    def __bool__(self) -> bool:
        return bool(self.exif or self.xmp)


def find_tags(file: BinaryIO) -> PhotoTags:
    """Finds EXIF and XMP in an image file, reading its headers only.

    A file that ends early or is none of JPEG, PNG and WebP has the tags that were found by then.

    Args:
        file: The file, at its beginning.
    """
    mark = file.read(12)
    if mark.startswith(b"\xff\xd8"):
        return _in_jpeg(file)
    if mark.startswith(_PNG_MARK):
        return _in_png(file)
    if mark.startswith(b"RIFF") and mark.endswith(b"WEBP"):
        return _in_webp(file)
    return PhotoTags()


def with_tags(image: bytes, tags: PhotoTags, *, keep_orientation: bool = True) -> bytes:
    """Returns an encoded image with tags put into it.

    Args:
        image: A JPEG or PNG without tags of its own; any other image is returned as it is.
        tags: What to put in. The thumbnail in its EXIF, which shows the old picture, is taken out
            of the directory. A block too large for a JPEG is left out.
        keep_orientation: Viewers turn the image as they turn the old one; otherwise they show it
            as it is stored.
    """
    exif = _edited(tags.exif, keep_orientation=keep_orientation)
    if image.startswith(b"\xff\xd8"):
        return _into_jpeg(image, exif, tags.xmp)
    if image.startswith(_PNG_MARK):
        return _into_png(image, exif, tags.xmp)
    return image


def _in_jpeg(file: BinaryIO) -> PhotoTags:
    exif = xmp = b""
    file.seek(2)
    while len(head := file.read(4)) == 4:
        mark, kind, length = struct.unpack(">BBH", head)
        if mark != 0xFF or kind in (_START_OF_SCAN, _END_OF_IMAGE) or length < 2:
            break
        if kind != _APP1:
            file.seek(length - 2, 1)
            continue
        payload = file.read(length - 2)
        if payload.startswith(_JPEG_EXIF):
            exif = exif or payload.removeprefix(_JPEG_EXIF)
        elif payload.startswith(_JPEG_XMP):
            xmp = xmp or payload.removeprefix(_JPEG_XMP)
    return PhotoTags(exif, xmp)


def _in_png(file: BinaryIO) -> PhotoTags:
    exif = xmp = b""
    file.seek(len(_PNG_MARK))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IDAT", b"IEND"):
            break
        if kind not in (b"eXIf", b"iTXt") or length > _BLOCK_LIMIT_BYTES:
            file.seek(length + 4, 1)
            continue
        payload = file.read(length)
        file.seek(4, 1)
        if kind == b"eXIf":
            exif = payload
        elif payload.startswith(_PNG_XMP):
            xmp = payload.removeprefix(_PNG_XMP)
    return PhotoTags(exif, xmp)


def _in_webp(file: BinaryIO) -> PhotoTags:
    found = {b"EXIF": b"", b"XMP ": b""}
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        padded = length + length % 2
        if kind in found and length <= _BLOCK_LIMIT_BYTES:
            found[kind] = file.read(padded)[:length]
        else:
            file.seek(padded, 1)
    return PhotoTags(found[b"EXIF"].removeprefix(_JPEG_EXIF), found[b"XMP "])


def _into_jpeg(image: bytes, exif: bytes, xmp: bytes) -> bytes:
    """Puts the blocks behind the JFIF segment, which comes first where there is one."""
    start = 2
    if image[2:4] == bytes((0xFF, _APP0)):
        start += 2 + struct.unpack_from(">H", image, 4)[0]
    payloads = [_JPEG_EXIF + exif] * bool(exif) + [_JPEG_XMP + xmp] * bool(xmp)
    segments = [
        struct.pack(">BBH", 0xFF, _APP1, len(payload) + 2) + payload
        for payload in payloads
        if len(payload) <= _JPEG_PAYLOAD_LIMIT
    ]
    return b"".join((image[:start], *segments, image[start:]))


def _into_png(image: bytes, exif: bytes, xmp: bytes) -> bytes:
    chunks = [_png_chunk(b"eXIf", exif)] * bool(exif)
    chunks += [_png_chunk(b"iTXt", _PNG_XMP + xmp)] * bool(xmp)
    return b"".join((image[:_PNG_HEADER_END], *chunks, image[_PNG_HEADER_END:]))


def _png_chunk(kind: bytes, payload: bytes) -> bytes:
    checked = kind + payload
    return struct.pack(">I", len(payload)) + checked + struct.pack(">I", zlib.crc32(checked))


def _edited(exif: bytes, *, keep_orientation: bool) -> bytes:
    """Ends the list of directories behind the first, because the second is the thumbnail's."""
    order = ">" if exif.startswith(b"MM") else "<"
    edited = bytearray(exif)
    try:
        (start,) = struct.unpack_from(f"{order}I", edited, 4)
        (count,) = struct.unpack_from(f"{order}H", edited, start)
        entries = range(start + 2, start + 2 + 12 * count, 12)
        struct.pack_into(f"{order}I", edited, start + 2 + 12 * count, 0)
        for entry in entries:
            if not keep_orientation and struct.unpack_from(f"{order}H", edited, entry)[0] == 0x0112:
                struct.pack_into(f"{order}H", edited, entry + 8, 1)
    except struct.error:  # damaged; it stays what it is
        return exif
    return bytes(edited)
