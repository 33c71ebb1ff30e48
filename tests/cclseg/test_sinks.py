"""Each sink against the contract, and disks that refuse."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from contracts import SinkContract, frames_in, images_in, item

from cclseg import open_sink
from cclseg.errors import InputError, SinkError
from cclseg.image_files import read_mask
from cclseg.sinks.encoders import check_codec
from cclseg.sinks.images import FileSink, FolderSink
from cclseg.sinks.video import VideoSink

SUPPORT = Path(__file__).parents[1] / "support"


class TestMaskFolder(SinkContract):
    @pytest.fixture
    def sink(self, tmp_path):
        return open_sink(tmp_path / "deep" / "masks")

    def pictures(self, sink):
        return images_in(sink.target)

    def test_masks_are_exact_and_named_after_their_frames(self, sink, items):
        with sink:
            for frame, result in items:
                sink.write(frame, result)
        for frame, result in items:
            written = read_mask(sink.target / f"{frame.name}.png")
            np.testing.assert_array_equal(written, result.mask)

    def test_what_stood_there_before_is_replaced(self, sink, items):
        path = sink.target / f"{items[0][0].name}.png"
        path.write_bytes(b"old")
        sink.write(*items[0])
        np.testing.assert_array_equal(read_mask(path), items[0][1].mask)


class TestOverlayFolder(SinkContract):
    @pytest.fixture
    def sink(self, tmp_path):
        return open_sink(tmp_path / "overlays", kind="overlay")

    def pictures(self, sink):
        return images_in(sink.target)

    def test_overlays_look_like_overlays(self, sink, items):
        sink.write(*items[0])
        (picture,) = images_in(sink.target)
        drawn = items[0][1].overlay(items[0][0].image).astype(float)
        assert np.abs(picture - drawn).mean() < 12  # JPEG is lossy


@pytest.fixture(params=["h264", "mpeg4"])
def codec(request):
    """Every codec that this machine writes."""
    try:
        check_codec(request.param)
    except SinkError as error:
        pytest.skip(str(error))
    return request.param


class TestVideo(SinkContract):
    @pytest.fixture
    def sink(self, tmp_path, codec):
        return open_sink(tmp_path / "out" / "flight.mp4", fps=12.5, codec=codec)

    def pictures(self, sink):
        return frames_in(sink.target)

    def test_until_the_end_it_has_no_final_name(self, sink, items):
        with sink:
            sink.write(*items[0])
            assert not sink.target.exists()
        assert sink.target.exists()

    def test_an_image_of_another_size_is_refused_and_the_others_stay(self, sink, items):
        with sink:
            sink.write(*items[0])
            with pytest.raises(InputError, match="is 32 x 24, the video 64 x 48"):
                sink.write(*item(9, size_hw=(24, 32)))
            sink.write(*items[1])
        assert len(frames_in(sink.target)) == 2

    def test_a_camera_that_changes_its_size_is_fitted_in(self, tmp_path, codec):
        with open_sink(tmp_path / "camera.mp4", fps=10, codec=codec) as sink:
            for index, size_hw in enumerate([(48, 64), (96, 128), (48, 32), (20, 200), (48, 64)]):
                frame, result = item(index, size_hw=size_hw)
                sink.write(dataclasses.replace(frame, timestamp_s=index / 10), result)
        pictures = frames_in(sink.target)
        assert [picture.shape for picture in pictures] == [(48, 64, 3)] * 5
        assert pictures[1].mean(axis=(0, 2)).min() > 40  # half as large, it fills the picture
        upright, flat = pictures[2].mean(axis=(0, 2)), pictures[3].mean(axis=(1, 2))
        assert upright[20:44].min() > 40 > upright[:8].max()
        assert flat[23:26].min() > 40 > flat[:16].max()

    def test_it_looks_like_the_overlays_and_says_how_it_is_encoded(self, sink, codec, items):
        with sink:
            for frame, result in items:
                sink.write(frame, result)
        assert sink.encoder.startswith({"h264": "H.264 by ", "mpeg4": "MPEG-4 by "}[codec])
        for picture, (frame, result) in zip(frames_in(sink.target), items, strict=True):
            drawn = result.overlay(frame.image).astype(float)
            assert np.abs(picture - drawn).mean() < 20  # lossy, but the same picture

    @pytest.mark.parametrize("size_hw", [(31, 97), (48, 63), (33, 64)])
    def test_odd_sizes_become_even_and_lose_nothing(self, tmp_path, codec, size_hw):
        with open_sink(tmp_path / "odd.mp4", codec=codec) as sink:
            sink.write(*item(0, size_hw=size_hw))
            sink.write(*item(1, size_hw=size_hw))
        pictures = frames_in(sink.target)
        assert [picture.shape[:2] for picture in pictures] == [
            (size_hw[0] + size_hw[0] % 2, size_hw[1] + size_hw[1] % 2)
        ] * 2


class TestH264:
    @pytest.fixture(autouse=True)
    def _needs_an_encoder(self):
        try:
            check_codec("h264")
        except SinkError as error:
            pytest.skip(str(error))

    def shown_s(self, path):
        capture, times_s = cv2.VideoCapture(str(path)), []
        while capture.read()[0]:
            times_s.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        return times_s

    def test_frames_are_shown_at_their_own_times(self, tmp_path):
        times_s = [5.0, 5.1, 5.4, 5.45, 7.0]
        with open_sink(tmp_path / "camera.mp4") as sink:
            for index, time_s in enumerate(times_s):
                frame, result = item(index)
                sink.write(dataclasses.replace(frame, timestamp_s=time_s), result)
        np.testing.assert_allclose(self.shown_s(sink.target), np.array(times_s) - 5, atol=1e-3)

    def test_times_that_run_backwards_or_are_missing_are_filled_in(self, tmp_path):
        with open_sink(tmp_path / "camera.mp4", fps=10) as sink:
            for index, time_s in enumerate([0.0, 0.4, 0.2, None, 3.0]):
                frame, result = item(index)
                sink.write(dataclasses.replace(frame, timestamp_s=time_s), result)
        np.testing.assert_allclose(self.shown_s(sink.target), [0, 0.4, 0.5, 0.6, 3.0], atol=1e-3)

    def test_an_encoder_that_is_killed_is_a_sink_error(self, tmp_path):
        def write_on():
            with open_sink(tmp_path / "out.mp4") as sink:
                sink.write(*item(0))
                sink._open._pipeline._child.kill()
                for index in range(2000):
                    sink.write(*item(index))

        with pytest.raises(SinkError, match=r"cannot write .*H\.264 by \w+ failed"):
            write_on()
        assert not list(tmp_path.iterdir())

    def test_no_path_is_read_as_a_pipeline(self, tmp_path):
        target = tmp_path / "a ! fakesink 'x\".mp4"
        with open_sink(target) as sink:
            sink.write(*item(0))
        assert len(frames_in(target)) == 1

    def test_without_gstreamer_it_is_mpeg4_or_a_clear_refusal(self, tmp_path, monkeypatch):
        monkeypatch.setattr("cclseg.sinks.encoders.has_element", lambda name: False)
        with pytest.raises(SinkError, match=r"apt install gstreamer1\.0-tools"):
            open_sink(tmp_path / "a.mp4", codec="h264")
        with open_sink(tmp_path / "a.mp4") as sink:
            sink.write(*item(0))
        assert sink.encoder == "MPEG-4 by OpenCV"
        with pytest.raises(InputError, match="codec='av1'; expected"):
            open_sink(tmp_path / "a.mp4", codec="av1")


class TestLines:
    def test_every_frame_is_a_line(self, tmp_path):
        with open_sink(tmp_path / "deep" / "water.jsonl") as sink:
            for index in range(3):
                sink.write(*item(index))
                lines = sink.target.read_text().splitlines()
                assert len(lines) == index + 1  # while it is being written
        for index, line in enumerate(lines):
            content = json.loads(line)
            assert (content["frame"], content["index"]) == (f"frame_{index}", index)
            assert sum(content["fractions"].values()) == pytest.approx(1, abs=1e-5)
            assert content["age_ms"] is None

    def test_what_stood_there_is_replaced_by_the_first_line_only(self, tmp_path):
        path = tmp_path / "water.jsonl"
        path.write_text("old\n" * 100)
        with open_sink(path):
            pass
        assert path.read_text() == "old\n" * 100
        with open_sink(path) as sink:
            sink.write(*item(0))
        assert len(path.read_text().splitlines()) == 1

    def test_an_abort_keeps_the_whole_lines(self, tmp_path):
        sink = open_sink(tmp_path / "water.jsonl")
        sink.write(*item(0))
        sink.abort()
        assert json.loads(sink.target.read_text())["index"] == 0


class TestCalls:
    def test_each_result_is_handed_over_with_its_frame(self):
        seen = []
        with open_sink(lambda out: seen.append((out.frame.name, out.mask.shape))) as sink:
            for index in range(2):
                sink.write(*item(index))
        assert seen == [("frame_0", (48, 64)), ("frame_1", (48, 64))]

    def test_its_errors_are_the_callers(self):
        def refuse(out):
            raise ZeroDivisionError("a bug of theirs")

        with pytest.raises(ZeroDivisionError, match="a bug of theirs"):
            open_sink(refuse).write(*item(0))


class TestSingleFile:
    def test_a_mask_and_an_overlay(self, tmp_path):
        frame, result = item(0)
        for name in ("mask.png", "overlay.jpg"):
            with open_sink(tmp_path / name) as sink:
                sink.write(frame, result)
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), result.mask)
        assert images_in(tmp_path)[1].shape == (48, 64, 3)

    def test_a_second_frame_is_refused(self, tmp_path):
        with open_sink(tmp_path / "mask.png") as sink:
            sink.write(*item(0))
            with pytest.raises(InputError, match="already has 'frame_0'; give a folder"):
                sink.write(*item(1))


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("masks", None, FolderSink),
        ("a.png", None, FileSink),
        ("a.PNG", "overlay", FileSink),
        ("a.jpg", None, FileSink),
        ("a.mp4", None, VideoSink),
        ("a.mp4", "overlay", VideoSink),
    ],
)
def test_the_form_of_the_path_chooses(tmp_path, name, kind, expected):
    assert isinstance(open_sink(tmp_path / name, kind=kind), expected)


def test_a_folder_whose_name_has_an_ending_stays_a_folder(tmp_path):
    (tmp_path / "flight.07").mkdir()
    assert isinstance(open_sink(tmp_path / "flight.07"), FolderSink)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("a.tif", None, r"no results of the form '\.tif'"),
        ("a.geojson", None, "expected a folder"),
        ("a.jsonl", "masks", "would not keep class ids exactly"),
        ("a.jpg", "masks", "would not keep class ids exactly"),
        ("a.mp4", "masks", "would not keep class ids exactly"),
        ("a", "heatmap", "expected 'masks' or 'overlay'"),
    ],
)
def test_what_cannot_be_written_is_refused_before_work(tmp_path, name, kind, message):
    with pytest.raises(InputError, match=message):
        open_sink(tmp_path / name, kind=kind)


@pytest.mark.parametrize("name", ["masks", "masks/a.png", "masks/a.mp4"])
def test_a_file_in_the_way_of_the_folder(tmp_path, name):
    (tmp_path / "masks").write_text("a file")
    with pytest.raises(SinkError, match="choose another place"):
        open_sink(tmp_path / name / "deeper" if name == "masks" else tmp_path / name)


def test_the_input_is_never_written_over(tmp_path):
    path = tmp_path / "frame_0.png"
    frame, result = item(0, path=path)
    path.write_bytes(b"the only copy")
    for target in (tmp_path, path):
        with pytest.raises(InputError, match="is the input itself"):
            open_sink(target).write(frame, result)
    assert path.read_bytes() == b"the only copy"


FULL_DISK = """
import json, resource, sys
sys.path.insert(0, {support!r})
from pathlib import Path
from contracts import item
from cclseg import open_sink
from cclseg.errors import SinkError

resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    with open_sink({target!r}) as sink:
        for index in range(40):
            sink.write(*item(index, size_hw=(480, 640)))
except SinkError as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.parametrize(("name", "limit"), [("masks", 200), ("flight.mp4", 60_000)])
def test_where_no_file_may_grow_nothing_half_written_stands(tmp_path, name, limit):
    target = tmp_path / "out" / name
    code = FULL_DISK.format(support=str(SUPPORT), limit=limit, target=str(target))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    message = json.loads(done.stdout)
    assert f"cannot write {target}" in message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB, where this machine lets us have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"cannot mount a small file system: {error}")
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_lines_on_a_full_disk_stay_whole(small_disk):
    (small_disk / "filler").write_bytes(bytes(280_000))
    frame, result = item(0)

    def fill():
        with open_sink(small_disk / "water.jsonl") as sink:
            for index in range(2000):
                sink.write(dataclasses.replace(frame, index=index), result)

    with pytest.raises(SinkError, match=r"cannot write .*No space left.*; free space"):
        fill()
    lines = (small_disk / "water.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(len(lines)))
    assert len(lines) > 10


@pytest.mark.parametrize("name", ["masks", "flight.mp4"])
def test_a_full_disk_is_a_sink_error_and_keeps_what_is_whole(small_disk, name):
    written = 0

    def fill():
        nonlocal written
        with open_sink(small_disk / name) as sink:
            for index in range(200):
                sink.write(*item(index, size_hw=(240, 320)))
                written += 1

    with pytest.raises(SinkError, match=r"cannot write .*space"):
        fill()
    files = [path for path in small_disk.rglob("*") if path.is_file()]
    assert not [path for path in files if "partial" in path.name]
    if name == "masks":
        assert len(files) == written > 0
        assert all(read_mask(path).shape == (240, 320) for path in files)
    else:
        assert files == []
