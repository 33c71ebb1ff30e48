"""The one place where the virtual flight imports OpenCV."""

from __future__ import annotations

from typing import Any

from ..errors import MissingDependencyError

try:
    import cv2 as _cv2
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "cv2", extra="cpu", purpose="rendering virtual flights"
    ) from error

# OpenCV's stubs widen every array to any integer or float, so callers name the types they get.
cv2: Any = _cv2
