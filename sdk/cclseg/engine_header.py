"""Tells what a file named like an engine really is, from its first bytes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

_LENGTH = struct.Struct("<i")
_LONGEST_HEADER = 1 << 20
_SIGNATURES = (
    (b"PK\x03\x04", "is a zip archive or a PyTorch checkpoint"),
    (b"\x80\x02", "is a Python pickle"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file: run: git lfs pull"),
    (b"<!DOCTYPE", "is a web page: the download went wrong"),
    (b"<html", "is a web page: the download went wrong"),
)


def foreign_content(path: Path) -> str | None:
    """Says what is wrong with a file that should be an engine, None where nothing is seen.

    The answer continues a sentence that begins with the path.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_LENGTH.size + _LONGEST_HEADER)
    except OSError as error:
        return f"cannot be read: {error.strerror}; check the path"
    if not head:
        return "is empty (0 bytes); copy or build the engine again"
    if (header := ultralytics_header(head)) is not None:
        return (
            f"is an engine of Ultralytics ({_described(header)}), which has a header before its "
            "plan and outputs of its own; export that model as ONNX (yolo export format=onnx) and "
            f"run: cclseg build {path.stem}.onnx"
        )
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return f"{kind}; expected a TensorRT engine"
    if _looks_like_onnx(head):
        return f"is an ONNX file; name it {path.stem}.onnx and run: cclseg build {path.stem}.onnx"
    return None


def ultralytics_header(head: bytes) -> dict[str, Any] | None:
    """Returns the metadata that Ultralytics writes before a plan, None where there is none.

    It is a length in four bytes, little end first, and as many bytes of JSON.
    """
    if len(head) <= _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(head)
    text = head[_LENGTH.size : _LENGTH.size + max(length, 0)]
    if not 2 <= length <= _LONGEST_HEADER or len(text) < length or not text.startswith(b"{"):
        return None
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _described(header: dict[str, Any]) -> str:
    """Names what a person recognises the model by; values are cut, for nobody checked them."""
    parts = [f"{key} {str(header[key])[:40]}" for key in ("task", "imgsz") if key in header]
    return ", ".join(parts) or "no task given"


def _looks_like_onnx(head: bytes) -> bool:
    """Recognises the fields that each exporter writes first: the version, then the producer."""
    return len(head) > 2 and head[0] == 0x08 and head[1] < 0x20 and head[2] in (0x12, 0x3A, 0x42)
