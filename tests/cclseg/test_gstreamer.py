"""Child processes of GStreamer: what they say, how they end, and what is said without them."""

import os
import shutil

import pytest

from cclseg import open_source
from cclseg.errors import MissingDependencyError
from cclseg.gstreamer import Pipeline, has_element

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
