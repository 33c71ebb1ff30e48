"""GStreamer pipelines for the texts that name cameras and streams.

A pipeline is a list of words for a child process, put together from parts that have been checked;
no shell reads them. Only ``gst:`` takes a pipeline as it is: there it is the user's own.

Options stand behind a ``#``, separated by commas: ``v4l2://0#size=1280x720,fps=30``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult

from ..errors import SourceError
from ..gstreamer import has_element
from ..stream_texts import location_of, one_of, size, split_text, whole, without_password

# Best first: those of a Jetson, of NVIDIA's desktop cards, of Intel and AMD, of small boards.
_HARDWARE_DECODERS = (
    "nvv4l2decoder", "nvh264dec", "nvh265dec", "vah264dec", "vah265dec", "v4l2slh264dec",
    "v4l2slh265dec", "v4l2h264dec", "v4l2h265dec",
)  # fmt: skip
# No decoder has a higher rank by itself: theirs are around GST_RANK_PRIMARY, 256.
_FIRST_RANK = 1024

_DECODER = {"decoder": one_of("auto", "software")}


@dataclass(frozen=True, slots=True)
class GstPipeline:
    """A pipeline up to its decoded frames.

    Attributes:
        words: The words of the pipeline.
        name: Short name of the source, for results and messages; without user and password.
        ends: The pipeline may come to its natural end.
        ranks: Ranks of decoders by their names; the highest that is there and takes the stream
            decodes it.
    """

    words: tuple[str, ...]
    name: str
    ends: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)


def pipeline_for(text: str) -> GstPipeline:
    """Returns the pipeline for the text of a live source.

    ================================  ==========================================================
    text                              source, and its options with their defaults
    ================================  ==========================================================
    ``rtsp://HOST/PATH``, ``rtsps:``  network camera: latency_ms=100, transport=tcp|udp
    ``rtp://ADDRESS:PORT``            RTP over UDP: codec=h264|h265|jpeg, payload=96,
                                      latency_ms=50
    ``udp://ADDRESS:PORT``            MPEG transport stream over UDP
    ``v4l2://0``, ``v4l2:///dev/x``   camera of this machine: size=, fps=, format=raw|jpeg|h264
    ``csi://0``                       CSI camera of a Jetson: size=1280x720, fps=30, flip=0
    ``gst:PIPELINE``                  any pipeline that ends in video
    ================================  ==========================================================

    What is decoded takes decoder=auto|software too: by default the machine's hardware decodes, if
    it has a decoder and that takes the stream.

    Raises:
        SourceError: A part of the text cannot be read.
    """
    scheme = text.partition(":")[0]
    return _BUILDERS[scheme](text)


def _rtsp(text: str) -> GstPipeline:
    url, options = split_text(
        text, {"latency_ms": whole, "transport": one_of("tcp", "udp")} | _DECODER
    )
    host = _host(text, url)
    words = (
        "rtspsrc",
        f"location={location_of(text)}",
        f"latency={options.get('latency_ms', 100)}",
        f"protocols={options.get('transport', 'tcp')}",
        "drop-on-latency=true",
        *_link("application/x-rtp,media=video"),  # never the sound
        *_link("decodebin"),
    )
    return GstPipeline((*words, *_to_bgr()), name=host, ranks=_ranks(options))


def _rtp(text: str) -> GstPipeline:
    url, options = split_text(
        text,
        {"codec": one_of("h264", "h265", "jpeg"), "payload": whole, "latency_ms": whole} | _DECODER,
    )
    codec = options.get("codec", "h264").upper()
    caps = (
        f"application/x-rtp,media=video,clock-rate=90000,encoding-name={codec},"
        f"payload={options.get('payload', 96)}"
    )
    address, port = _address(text, url)
    words = (
        "udpsrc",
        f"address={address}",
        f"port={port}",
        f"caps={caps}",
        *_link("rtpjitterbuffer"),
        f"latency={options.get('latency_ms', 50)}",
        "drop-on-latency=true",
        *_link("decodebin"),
    )
    return GstPipeline((*words, *_to_bgr()), name=f"rtp_{port}", ranks=_ranks(options))


def _udp(text: str) -> GstPipeline:
    url, options = split_text(text, _DECODER)
    address, port = _address(text, url)
    words = ("udpsrc", f"address={address}", f"port={port}", *_link("decodebin"))
    return GstPipeline((*words, *_to_bgr()), name=f"udp_{port}", ranks=_ranks(options))


def _v4l2(text: str) -> GstPipeline:
    formats = {"raw": "video/x-raw", "jpeg": "image/jpeg", "h264": "video/x-h264"}
    url, options = split_text(
        text, {"size": size, "fps": whole, "format": one_of(*formats)} | _DECODER
    )
    device = f"/dev/video{url.netloc}" if url.netloc.isdecimal() else url.path
    if not re.fullmatch(r"/dev/[\w./:+-]+", device) or ".." in device:
        raise SourceError(f"{text}: '{url.netloc}{url.path}' is no camera; expected v4l2://0")
    words = ["v4l2src", f"device={device}"]
    if options.keys() - _DECODER:
        words += _link(_caps(formats[options.get("format", "raw")], options))
    name = re.sub(r"\W+", "_", device.removeprefix("/dev/"))
    return GstPipeline((*words, *_link("decodebin"), *_to_bgr()), name=name, ranks=_ranks(options))


def _csi(text: str) -> GstPipeline:
    url, options = split_text(text, {"size": size, "fps": whole, "flip": whole})
    if not url.netloc.isdecimal() or options.get("flip", 0) > 7:
        raise SourceError(f"{text} is no CSI camera; expected csi://0, with flip= from 0 to 7")
    caps = _caps("video/x-raw(memory:NVMM)", {"size": (720, 1280), "fps": 30} | options)
    words = (
        "nvarguscamerasrc",
        f"sensor-id={int(url.netloc)}",
        *_link(f"{caps},format=NV12"),
        *_link("nvvidconv"),
        f"flip-method={options.get('flip', 0)}",
        *_link("video/x-raw,format=BGRx"),
        *_link("videoconvert"),
        *_link("video/x-raw,format=BGR"),
    )
    return GstPipeline(words, name=f"csi{int(url.netloc)}")


def _gst(text: str) -> GstPipeline:
    pipeline = text.partition(":")[2]
    try:
        words = shlex.split(pipeline)
    except ValueError as error:
        raise SourceError(f"{text} is no pipeline: {error}; check its quotes") from error
    if not words or words[-1] == "!":
        raise SourceError(
            f"{text} is no pipeline; expected one that ends in video, such as "
            "gst:videotestsrc is-live=true"
        )
    return GstPipeline((*words, *_to_bgr()), name=re.sub(r"\W+", "_", words[0]), ends=True)


_BUILDERS: dict[str, Callable[[str], GstPipeline]] = {
    "rtsp": _rtsp, "rtsps": _rtsp, "rtp": _rtp, "udp": _udp, "v4l2": _v4l2, "csi": _csi,
    "gst": _gst,
}  # fmt: skip

LIVE_SCHEMES = frozenset(_BUILDERS)


def _host(text: str, url: SplitResult) -> str:
    if not url.hostname:
        raise SourceError(f"{without_password(text)} names no host; expected {url.scheme}://HOST")
    return url.hostname


def _address(text: str, url: SplitResult) -> tuple[str, int]:
    """Returns where to listen, an address of this machine or of a multicast group."""
    try:
        address = ip_address(url.hostname or "0.0.0.0")
    except ValueError as error:
        raise SourceError(
            f"{text}: '{url.hostname}' is no address; expected {url.scheme}://0.0.0.0:PORT"
        ) from error
    if not url.port:
        raise SourceError(f"{text} names no port; expected {url.scheme}://{address}:PORT")
    return str(address), url.port


def _caps(media: str, options: dict[str, Any]) -> str:
    parts = [media]
    if "size" in options:
        height, width = options["size"]
        parts += [f"width={width}", f"height={height}"]
    if "fps" in options:
        parts.append(f"framerate={options['fps']}/1")
    return ",".join(parts)


def _link(element: str) -> tuple[str, str]:
    return "!", element


def _ranks(options: dict[str, Any]) -> dict[str, int]:
    if options.get("decoder") == "software":
        return dict.fromkeys(_HARDWARE_DECODERS, 0)
    return {name: _FIRST_RANK - place for place, name in enumerate(_HARDWARE_DECODERS)}


def _to_bgr() -> tuple[str, ...]:
    """Returns what brings decoded frames, wherever they are, into memory as BGR."""
    words = [*_link("queue"), "max-size-buffers=2"]  # decodes the next frame meanwhile
    if has_element("nvvidconv"):  # a Jetson's decoder leaves frames in memory of its own
        words += [*_link("nvvidconv"), *_link("video/x-raw,format=BGRx")]
    return (*words, *_link("videoconvert"), *_link("video/x-raw,format=BGR"))
