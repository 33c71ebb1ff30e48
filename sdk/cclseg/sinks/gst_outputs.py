"""GStreamer pipelines for the texts that name streams to other machines.

Like those of sources, a pipeline is a list of words for a child process, put together from parts
that have been checked. Options stand behind a ``#``: ``rtp://10.0.0.9:5600#bitrate_kbps=2000``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, SinkError
from ..gstreamer import elements_in, missing_element
from ..stream_texts import location_of, one_of, split_text, whole, without_password

_BITRATE_KBPS = 4000
_JOIN_WITHIN_S = 2

# Best first; every picture leaves as soon as it is encoded. {bps} and {kbps} are the bit rate,
# {interval} the number of pictures after which a receiver can join.
_ENCODERS = {
    "nvv4l2h264enc": (
        "video/x-raw,format=BGRx ! nvvidconv ! video/x-raw(memory:NVMM),format=NV12 ! "
        "nvv4l2h264enc bitrate={bps} iframeinterval={interval} insert-sps-pps=true"
    ),
    "x264enc": (
        "video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=superfast "
        "bitrate={kbps} key-int-max={interval}"
    ),
    "openh264enc": (
        "video/x-raw,format=I420 ! openh264enc bitrate={bps} gop-size={interval} complexity=low"
    ),
}
_REQUIRED = ("gdpdepay", "videoconvert", "h264parse")


@dataclass(frozen=True, slots=True)
class GstOutput:
    """A pipeline behind pictures.

    Attributes:
        words: The words of the pipeline, from its pictures on.
        shown: What it is called in messages: the text without options and password.
        encoder: The element that encodes.
    """

    words: tuple[str, ...]
    shown: str
    encoder: str


def output_for(text: str, *, fps: float, has: Callable[[str], bool]) -> GstOutput:
    """Returns the pipeline for the text of a stream to other machines; it carries H.264.

    =====================  =====================================================================
    text                   sends, and its options with their defaults
    =====================  =====================================================================
    ``rtp://HOST:PORT``    RTP over UDP: bitrate_kbps=4000, payload=96
    ``rtsp://HOST/PATH``,  to an RTSP server that takes streams: bitrate_kbps=4000,
    ``rtsps:``             transport=tcp|udp
    =====================  =====================================================================

    Args:
        text: The text.
        fps: Usual rate of the pictures; a receiver can join every two seconds.
        has: Says whether GStreamer has an element.

    Raises:
        InputError: A part of the text cannot be read.
        SinkError: GStreamer or an element is missing; the message names the package.
    """
    sender, options = _SENDERS[text.partition(":")[0]](text)
    missing = next((name for name in (*_REQUIRED, *elements_in(sender)) if not has(name)), None)
    # DeepStream brings the encoder of a Jetson to desktops, without what stands before it.
    usable = (name for name in _ENCODERS if all(map(has, elements_in(_ENCODERS[name].split()))))
    encoder = next(usable, None)
    if missing or encoder is None:
        reason = missing_element(missing or "x264enc")
        raise SinkError(f"{without_password(text)} cannot be sent to: {reason}")
    kbps = options.get("bitrate_kbps", _BITRATE_KBPS)
    encode = _ENCODERS[encoder].format(
        kbps=kbps, bps=1000 * kbps, interval=max(1, round(_JOIN_WITHIN_S * fps))
    )
    return GstOutput(
        words=("!", *encode.split(), "!", "h264parse", "!", *sender),
        shown=without_password(text).partition("#")[0],
        encoder=encoder,
    )


def _rtp(text: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    readers = {"bitrate_kbps": whole, "payload": whole}
    url, options = split_text(text, readers, error=InputError)
    # GStreamer reads quotes, spaces and more as parts of a pipeline.
    if not re.fullmatch(r"[\w.:-]+", url.hostname or "", re.ASCII) or not url.port:
        raise InputError(f"{text} names no receiver; expected rtp://HOST:PORT")
    words = (
        *("rtph264pay", f"pt={options.get('payload', 96)}", "config-interval=1", "!"),
        *("udpsink", f"host={url.hostname}", f"port={url.port}", "sync=false"),
    )
    return words, options


def _rtsp(text: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    readers = {"bitrate_kbps": whole, "transport": one_of("tcp", "udp")}
    url, options = split_text(text, readers, error=InputError)
    if not url.hostname:
        raise InputError(f"{without_password(text)} names no host; expected {url.scheme}://HOST")
    protocol = options.get("transport", "tcp")
    return ("rtspclientsink", f"location={location_of(text)}", f"protocols={protocol}"), options


_SENDERS = {"rtp": _rtp, "rtsp": _rtsp, "rtsps": _rtsp}
