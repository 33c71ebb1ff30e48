"""Sinks: where results go."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import InputError
from ..suggest import did_you_mean
from .base import Sink
from .calls import CallSink
from .images import FileSink, FolderSink, Kind

if TYPE_CHECKING:
    from ..result import Segmentation

__all__ = ["SCHEMES", "Codec", "Kind", "Sink", "open_sink"]

Codec = Literal["auto", "h264", "mpeg4"]
"""How a video is encoded; "auto" is H.264 where this machine has an encoder for it."""


def open_sink(
    path: str | Path | Callable[[Segmentation], object],
    *,
    kind: Kind | None = None,
    fps: float | None = None,
    codec: Codec = "auto",
) -> Sink:
    """Opens a place for results by the form of its path.

    ========================  ====================================================
    path                      holds
    ========================  ====================================================
    no ending, or a folder    one file per frame: ``<name>.png`` masks,
                              or ``<name>.jpg`` overlays
    ``.png``                  one mask, or one overlay
    ``.jpg``, ``.jpeg``       one overlay
    ``.mp4``                  a video of overlays
    ``.jsonl``                a line of JSON per frame: time, age, share of each class
    ``rtp://HOST:PORT``,      nothing: overlay video goes to another machine
    ``rtsp://HOST/PATH``      (:func:`cclseg.sinks.gst_outputs.output_for`)
    ``zmq:tcp://ADDRESS``     nothing: masks and figures go to other processes
                              (:mod:`cclseg.sinks.zmq`)
    a function                nothing: it is called with each result
    ========================  ====================================================

    Args:
        path: The target; missing folders are made. Addresses are texts.
        kind: "masks" or "overlay"; None for what the table gives first.
        fps: Frames per second of a video whose frames have no times, None for ten.
        codec: How a video is encoded.

    Returns:
        A context manager with a method ``write(frame, result)``.

    Raises:
        InputError: The ending or scheme is unknown or does not hold what was asked for.
        SinkError: The folder cannot be made or written to, or there is no such encoder or address.

    Example:
        >>> with open_sink("out.mp4", fps=25) as sink:  # doctest: +SKIP
        ...     sink.write(frame, segmenter(frame.image))
    """
    if not isinstance(path, (str, Path)):
        return CallSink(path)
    if kind not in (None, "masks", "overlay"):
        raise InputError(f"kind='{kind}'; expected 'masks' or 'overlay'")
    scheme = re.match(r"([a-z]+):", str(path))
    if scheme and (scheme[1] in SCHEMES or str(path).startswith("//", scheme.end())):
        return _open_scheme(str(path), scheme[1], kind, fps)
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_dir() or not suffix:
        return FolderSink(path, kind=kind or "masks")
    if suffix in (".jpg", ".jpeg", ".mp4", ".jsonl") and kind == "masks":
        raise InputError(
            f"{path.name} would not keep class ids exactly; write masks as .png or into a folder"
        )
    if suffix in (".png", ".jpg", ".jpeg"):
        return FileSink(path, kind=kind or ("masks" if suffix == ".png" else "overlay"))
    if suffix == ".mp4":
        from .video import VideoSink

        return VideoSink(path, fps=fps, codec=codec)
    if suffix == ".jsonl":
        from .lines import LinesSink

        return LinesSink(path)
    raise InputError(
        f"cannot write {path.name}: no results of the form '{path.suffix}' in this version; "
        "expected a folder, .png, .jpg, .mp4 or .jsonl"
    )


def _open_scheme(text: str, scheme: str, kind: Kind | None, fps: float | None) -> Sink:
    if scheme not in SCHEMES:
        raise InputError(f"{text}: nothing is sent by '{scheme}:'; {did_you_mean(scheme, SCHEMES)}")
    carried, open_it = SCHEMES[scheme]
    if kind not in (None, carried):
        raise InputError(f"{scheme}: carries {carried}, not {kind}; choose another sink")
    return open_it(text, fps)


def _open_outgoing(text: str, fps: float | None) -> Sink:
    from .outgoing import OutgoingVideoSink

    return OutgoingVideoSink(text, fps=fps)


def _open_publisher(text: str, _: float | None) -> Sink:
    from .zmq import ZmqSink

    return ZmqSink(text.partition(":")[2])


SCHEMES: dict[str, tuple[Kind, Callable[[str, float | None], Sink]]] = {
    "rtp": ("overlay", _open_outgoing),
    "rtsp": ("overlay", _open_outgoing),
    "rtsps": ("overlay", _open_outgoing),
    "zmq": ("masks", _open_publisher),
}
"""What a sink written as ``scheme:rest`` carries, and what opens it, by scheme; it gets the whole
text and the usual rate of the frames."""
