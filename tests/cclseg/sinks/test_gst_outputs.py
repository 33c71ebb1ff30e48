"""Pipelines to other machines: what is sent, what is refused, what is missing."""

import pytest

from cclseg.errors import InputError, SinkError
from cclseg.sinks.gst_outputs import output_for

DESKTOP = {
    "gdpdepay", "videoconvert", "h264parse", "x264enc", "openh264enc", "rtph264pay", "udpsink",
    "rtspclientsink",
}  # fmt: skip


def output(text, *, fps=10.0, elements=DESKTOP):
    return output_for(text, fps=fps, has=elements.__contains__)


def test_rtp():
    found = output("rtp://10.0.0.9:5600")
    words = " ".join(found.words)
    assert "x264enc tune=zerolatency" in words
    assert "bitrate=4000 key-int-max=20" in words
    assert words.endswith(
        "! rtph264pay pt=96 config-interval=1 ! udpsink host=10.0.0.9 port=5600 sync=false"
    )
    assert (found.shown, found.encoder) == ("rtp://10.0.0.9:5600", "x264enc")


def test_rtsp_and_its_password():
    found = output("rtsp://pilot:secret@10.0.0.9:8554/live#transport=udp,bitrate_kbps=900")
    words = " ".join(found.words)
    assert "location=rtsp://pilot:secret@10.0.0.9:8554/live protocols=udp" in words
    assert "bitrate=900" in words
    assert found.shown == "rtsp://***@10.0.0.9:8554/live"


def test_the_encoder_of_a_jetson_is_taken_where_it_is():
    words = output("rtp://h:1", fps=30, elements=DESKTOP | {"nvv4l2h264enc", "nvvidconv"}).words
    assert {"nvvidconv", "nvv4l2h264enc", "bitrate=4000000", "iframeinterval=60"} <= set(words)
    assert "x264enc" not in words


def test_but_not_where_it_lacks_its_converter():
    assert output("rtp://h:1", elements=DESKTOP | {"nvv4l2h264enc"}).encoder == "x264enc"


def test_another_encoder_does_as_well():
    found = output("rtp://h:1", elements=DESKTOP - {"x264enc"})
    assert found.encoder == "openh264enc"
    assert "gop-size=20" in found.words


@pytest.mark.parametrize(
    ("text", "missing", "package"),
    [
        ("rtsp://h/live", "rtspclientsink", "gstreamer1.0-rtsp"),
        ("rtp://h:1", "udpsink", "gstreamer1.0-plugins-good"),
        ("rtp://h:1", "rtph264pay", "gstreamer1.0-plugins-good"),
        ("rtp://h:1", "gdpdepay", "gstreamer1.0-plugins-bad"),
    ],
)
def test_what_is_missing_is_named_with_its_package(text, missing, package):
    with pytest.raises(SinkError, match=rf"no element '{missing}'; apt install {package}"):
        output(text, elements=DESKTOP - {missing})


def test_without_an_encoder_one_is_named():
    with pytest.raises(SinkError, match=r"'x264enc'; apt install gstreamer1\.0-plugins-ugly"):
        output("rtp://h:1", elements=DESKTOP - {"x264enc", "openh264enc"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rtp://", "names no receiver"),
        ("rtp://10.0.0.9", "names no receiver"),
        ("rtp://:5600", "names no receiver"),
        ("rtp://10.0.0.9:99999", "cannot be read"),
        ("rtp://h;reboot:5600", "names no receiver"),
        ('rtp://h" ! fakesink:5600', "names no receiver"),
        ("rtp://h:1#bitrate_kbps=fast", "expected a whole number"),
        ("rtp://h:1#bitrate=1", "did you mean 'bitrate_kbps'"),
        ("rtsp:///live", "names no host"),
        ("rtsp://h/live#transport=pigeon", "expected tcp or udp"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        output(text)


def test_no_part_of_an_address_is_read_as_a_pipeline():
    location = output("rtsp://h/a b\"!fakesink'").words[-2]
    assert location == "location=rtsp://h/a%20b%22%21fakesink%27"
