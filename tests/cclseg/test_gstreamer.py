"""Child processes of GStreamer: what they say, how they end, and what is said without them."""

import os
import re
import shutil

import pytest

from cclseg import open_source
from cclseg.errors import MissingDependencyError
from cclseg.gstreamer import Pipeline, elements_in, has_element

needs_gstreamer = pytest.mark.skipif(
    shutil.which("gst-launch-1.0") is None, reason="GStreamer (gst-launch-1.0) is not installed"
)


@pytest.fixture
def without_gstreamer(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    has_element.cache_clear()
    yield
    has_element.cache_clear()


def test_without_it_a_camera_is_refused_with_the_packages_to_install(without_gstreamer):
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(MissingDependencyError, match="apt install gstreamer1"):
        list(open_source("rtsp://10.0.0.7/live"))
    assert len(os.listdir("/proc/self/fd")) == files  # noqa: PTH208


def test_without_it_there_are_no_elements(without_gstreamer):
    assert not has_element("videoconvert")


def test_the_elements_among_the_words_of_a_pipeline():
    words = ["!", "video/x-raw,format=I420", "!", "x264enc", "bitrate=9", "!", "udpsink", "port=1"]
    assert elements_in(words) == elements_in(words[1:]) == ["x264enc", "udpsink"]


@needs_gstreamer
class TestPipeline:
    def test_it_says_why_it_failed(self):
        pipeline = Pipeline(["filesrc", "location=/absent", "!", "fakesink"], descriptors=[])
        assert pipeline.wait(30) != 0
        assert "No such file" in pipeline.reason() or "absent" in pipeline.reason()
        pipeline.end(patience_s=1)

    def test_one_that_ends_well_has_nothing_to_say(self):
        pipeline = Pipeline(["videotestsrc", "num-buffers=1", "!", "fakesink"], descriptors=[])
        assert pipeline.wait(30) == 0
        assert pipeline.reason() == ""
        pipeline.end(patience_s=1)

    def test_one_that_does_not_end_is_ended_and_may_be_ended_twice(self):
        pipeline = Pipeline(["videotestsrc", "!", "fakesink", "sync=true"], descriptors=[])
        assert pipeline.wait(0.1) is None
        pipeline.end(patience_s=10)
        assert pipeline.wait(0) is not None
        pipeline.end(patience_s=1)
        assert isinstance(pipeline.said(), str)

    def test_elements_are_known_by_name(self):
        assert has_element("fakesink")
        assert not has_element("nosuchelement")


@needs_gstreamer
class TestRanks:
    """Two real decoders stand in for one of hardware and one of software."""

    @pytest.fixture
    def decoder(self, monkeypatch):
        if not all(map(has_element, ("avdec_h264", "openh264dec", "x264enc"))):
            pytest.skip("GStreamer lacks one of avdec_h264, openh264dec and x264enc")
        monkeypatch.setenv("GST_DEBUG", "GST_ELEMENT_FACTORY:4")

        def chosen(ranks, form="I420"):
            make = f"videotestsrc num-buffers=2 ! video/x-raw,format={form},width=64,height=48"
            words = f"{make} ! x264enc ! h264parse ! decodebin ! fakesink".split()
            pipeline = Pipeline(words, descriptors=[], ranks=ranks)
            assert pipeline.wait(60) == 0
            said = pipeline.said()
            pipeline.end(patience_s=1)
            return re.findall(r'creating element "(avdec_h264|openh264dec)"', said)

        return chosen

    def test_the_highest_decodes(self, decoder):
        assert decoder({"nosuchdecoder": 2000, "openh264dec": 1024}) == ["openh264dec"]
        assert decoder({"openh264dec": 0}) == ["avdec_h264"]

    def test_one_that_does_not_take_the_stream_leaves_it_to_the_next(self, decoder):
        assert decoder({"openh264dec": 1024}, form="Y444") == ["avdec_h264"]

    def test_the_environment_has_the_last_word(self, decoder, monkeypatch):
        monkeypatch.setenv("GST_PLUGIN_FEATURE_RANK", "openh264dec:0")
        assert decoder({"openh264dec": 1024}) == ["avdec_h264"]
