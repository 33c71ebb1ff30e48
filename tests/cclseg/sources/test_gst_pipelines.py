"""Texts of cameras and streams become pipelines of checked words, or a clear refusal."""

import pytest

from cclseg.errors import SourceError
from cclseg.sources import gst_pipelines
from cclseg.sources.gst_pipelines import pipeline_for


@pytest.fixture(autouse=True)
def _no_jetson(monkeypatch):
    monkeypatch.setattr(gst_pipelines, "has_element", lambda name: False)


def words_of(text):
    return pipeline_for(text).words


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (
            "rtsp://10.0.0.7:8554/live?channel=1&sub=0",
            "10.0.0.7",
            ["rtspsrc", "location=rtsp://10.0.0.7:8554/live?channel=1&sub=0", "latency=100",
             "protocols=tcp"],
        ),
        (
            "rtsp://me:p%40ss@camera.local/live#latency_ms=20,transport=udp",
            "camera.local",
            ["location=rtsp://me:p%40ss@camera.local/live", "latency=20", "protocols=udp"],
        ),
        ("rtsps://[fe80::1]/a", "fe80::1", ["location=rtsps://[fe80::1]/a"]),
        (
            "rtp://239.0.0.1:5000#codec=h265,payload=97",
            "rtp_5000",
            ["address=239.0.0.1", "port=5000",
             "caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=H265,payload=97"],
        ),
        ("udp://:1234", "udp_1234", ["udpsrc", "address=0.0.0.0", "port=1234"]),
        ("v4l2://2", "video2", ["v4l2src", "device=/dev/video2"]),
        (
            "v4l2:///dev/v4l/by-id/usb-cam-0#size=1280x720,fps=30,format=jpeg",
            "v4l_by_id_usb_cam_0",
            ["device=/dev/v4l/by-id/usb-cam-0", "image/jpeg,width=1280,height=720,framerate=30/1"],
        ),
        (
            "csi://1#fps=60,flip=2",
            "csi1",
            ["nvarguscamerasrc", "sensor-id=1", "flip-method=2",
             "video/x-raw(memory:NVMM),width=1280,height=720,framerate=60/1,format=NV12"],
        ),
        (
            "gst:videotestsrc pattern='ball' ! video/x-raw,width=320",
            "videotestsrc",
            ["videotestsrc", "pattern=ball", "video/x-raw,width=320"],
        ),
    ],
)  # fmt: skip
def test_texts_become_words(text, name, words):
    pipeline = pipeline_for(text)
    assert pipeline.name == name
    assert set(words) <= set(pipeline.words)
    assert pipeline.words[-1] == "video/x-raw,format=BGR"
    assert pipeline.ends == text.startswith("gst:")


@pytest.mark.parametrize(
    "attack",
    [
        'rtsp://host/a" ! filesink location=/tmp/x',
        "rtsp://host/a' ! filesink location=/tmp/x",
        "rtsp://host/a\\ ! filesink\tlocation=/tmp/x",
        "rtsp://host/a\n! filesink",
        "rtsp://host/a ! filesink location=$(id)`id`;",
    ],
)
def test_nothing_in_an_address_becomes_an_element(attack):
    words = words_of(attack)
    (location,) = [word for word in words if word.startswith("location=")]
    assert not set(location) & set("\"'\\! \t\n$`()")
    assert "filesink" not in words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rtsp://", "names no host; expected rtsp://HOST"),
        ("rtsp://host:port/a", "cannot be read"),
        ("rtsp://host/a#latency=5", "unknown option 'latency'; did you mean 'latency_ms'"),
        ("rtsp://host/a#latency_ms=-5", "latency_ms is '-5'; expected a whole number"),
        ("rtsp://host/a#transport=tcpp", "transport is 'tcpp'; expected tcp or udp"),
        ("rtsp://host/a#transport", "'transport' has no value"),
        ("rtp://0.0.0.0", "names no port; expected rtp://0.0.0.0:PORT"),
        ("udp://host:5000", "'host' is no address"),
        ("v4l2://front", "is no camera; expected v4l2://0"),
        ("v4l2:///etc/passwd", "is no camera"),
        ("v4l2:///dev/../etc/passwd", "is no camera"),
        ("v4l2:///dev/video0 ! filesink", "is no camera"),
        ("v4l2://0#size=1280", "size is '1280'; expected WIDTHxHEIGHT"),
        ("csi://a", "is no CSI camera"),
        ("csi://0#flip=8", "flip= from 0 to 7"),
        ("gst:", "is no pipeline; expected one that ends in video"),
        ("gst:videotestsrc !", "is no pipeline"),
        ("gst:videotestsrc pattern='ball", "check its quotes"),
    ],
)
def test_what_cannot_be_read_is_refused_with_advice(text, message):
    with pytest.raises(SourceError, match=message):
        pipeline_for(text)


@pytest.mark.parametrize(
    "text", ["rtsp://me:secret@host:x/a", "rtsp://me:secret@host/a#speed=9", "rtsp://me:secret@"]
)
def test_passwords_are_never_shown(text):
    with pytest.raises(SourceError) as caught:
        pipeline_for(text)
    assert "secret" not in str(caught.value)
    assert "secret" not in pipeline_for("rtsp://me:secret@host/a").name


def test_a_jetson_brings_frames_out_of_its_own_memory(monkeypatch):
    monkeypatch.setattr(gst_pipelines, "has_element", lambda name: name == "nvvidconv")
    words = words_of("rtsp://host/a")
    assert words.index("nvvidconv") < words.index("videoconvert")


class TestDecoders:
    @pytest.mark.parametrize("text", ["rtsp://h/a", "rtp://:5000", "udp://:5000", "v4l2://0"])
    def test_hardware_decodes_before_software_the_best_first(self, text):
        ranks = pipeline_for(text).ranks
        names = sorted(ranks, key=ranks.get, reverse=True)
        assert names[0] == "nvv4l2decoder"
        assert names.index("vah264dec") < names.index("v4l2h264dec")
        assert min(ranks.values()) > 512  # GST_RANK_PRIMARY is 256

    @pytest.mark.parametrize("text", ["rtsp://h/a", "rtp://:5000", "udp://:5000", "v4l2://0"])
    def test_or_software_alone(self, text):
        software = pipeline_for(f"{text}#decoder=software")
        assert set(software.ranks.values()) == {0}
        assert software.words == pipeline_for(text).words

    def test_a_pipeline_of_the_user_s_chooses_for_itself(self):
        assert not pipeline_for("gst:videotestsrc").ranks
