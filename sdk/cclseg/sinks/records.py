"""What other programs are told of a result, as JSON-ready values."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..frame import Frame
    from ..result import Segmentation


def record_of(frame: Frame, result: Segmentation) -> dict[str, Any]:
    """Returns name, index, stream, times, age and share of each class of a result.

    ``pose``, ``camera`` (with the attributes of :class:`~cclseg.pose.Pose` and
    :class:`~cclseg.pose.Camera`) and ``captured_at`` (ISO 8601) are there where the frame has them.
    """
    record = {
        "frame": frame.name,
        "index": frame.index,
        "stream": frame.stream,
        "timestamp_s": _rounded(frame.timestamp_s),
        "age_ms": _rounded(result.age_ms),
        "fractions": {name: _rounded(share) for name, share in result.fractions().items()},
    }
    if frame.pose is not None:
        record["pose"] = asdict(frame.pose)
    if frame.camera is not None:
        record["camera"] = asdict(frame.camera)
    if frame.captured_at is not None:
        record["captured_at"] = frame.captured_at.isoformat()
    return record


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
