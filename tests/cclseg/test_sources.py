"""Each source against the contract, the order and names of frames, and broken files."""

import cv2
import numpy as np
import pytest
from contracts import SourceContract
from networks import colour_patches

from cclseg import open_source
from cclseg.errors import InputError, SourceError
from cclseg.image_files import read_image
from cclseg.sources import SCHEMES
from cclseg.sources.images import ImageFilesSource
from cclseg.sources.video import VideoSource


def write_images(folder, *names):
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), colour_patches((24, 32), seed=index))
    return folder


def write_video(path, frames=12, *, codec="mp4v", fps=12.5, size_hw=(48, 64)):
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*codec), fps, (size_hw[1], size_hw[0])
    )
    for index in range(frames):
        writer.write(colour_patches(size_hw, seed=index))
    writer.release()
    return path


class TestFolder(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write_images(tmp_path / "flight", "a.png", "b.jpg", "c.bmp"))


class TestPattern(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        write_images(tmp_path / "flight", "a.png", "b.png", "c.jpg")
        return open_source(str(tmp_path / "flight" / "*.png"))


class TestVideo(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write_video(tmp_path / "flight.mp4"))


class TestMotionJpegVideo(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write_video(tmp_path / "flight.avi", codec="MJPG"))


class TestStillImages:
    def test_one_image_is_a_source_of_one_frame(self, tmp_path):
        path = write_images(tmp_path, "photo.png") / "photo.png"
        (frame,) = open_source(path)
        assert (frame.name, frame.path, frame.timestamp_s) == ("photo", path, None)
        np.testing.assert_array_equal(frame.image, read_image(path))

    def test_numbers_in_names_count_as_numbers(self, tmp_path):
        folder = write_images(tmp_path / "f", "DJI_10.png", "DJI_9.png", "DJI_100.png", "A_2.png")
        names = [frame.name for frame in open_source(folder)]
        assert names == ["A_2", "DJI_9", "DJI_10", "DJI_100"]

    def test_other_files_hidden_files_and_folders_are_passed_over(self, tmp_path):
        folder = write_images(tmp_path / "f", "a.png", ".b.png")
        (folder / "notes.txt").write_text("windy")
        (folder / "sub.png").mkdir()
        assert [frame.name for frame in open_source(folder)] == ["a"]

    def test_equal_stems_get_distinct_names(self, tmp_path):
        folder = write_images(tmp_path / "f", "a.png", "a.jpg", "b.png")
        assert [frame.name for frame in open_source(folder)] == ["f_a_jpg", "f_a_png", "b"]

    def test_a_pattern_reaches_into_folders(self, tmp_path):
        write_images(tmp_path / "one", "a.png")
        write_images(tmp_path / "two", "a.png", "b.png")
        source = open_source(str(tmp_path / "**" / "*.png"))
        assert [frame.name for frame in source] == ["one_a_png", "two_a_png", "b"]

    def test_a_file_with_pattern_characters_in_its_name(self, tmp_path):
        path = write_images(tmp_path, "photo [1].png") / "photo [1].png"
        assert [frame.name for frame in open_source(path)] == ["photo [1]"]

    def test_a_three_band_tiff_comes_in_opencv_order(self, tmp_path):
        rasterio = pytest.importorskip("rasterio")
        path = tmp_path / "scene.tif"
        rgb = colour_patches((16, 16)).transpose(2, 0, 1)
        profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 3, "dtype": "uint8"}
        transform = rasterio.Affine(0.5, 0, 0, 0, -0.5, 0)
        with rasterio.open(path, "w", transform=transform, **profile) as raster:
            raster.write(rgb)
        (frame,) = open_source(path)
        np.testing.assert_array_equal(frame.image, rgb.transpose(1, 2, 0)[:, :, ::-1])

    def test_a_broken_image_does_not_end_the_source_where_it_is_heard(self, tmp_path):
        folder = write_images(tmp_path / "f", "a.png", "b.png", "c.jpg", "d.png")
        whole = (folder / "c.jpg").read_bytes()
        (folder / "c.jpg").write_bytes(whole[: len(whole) // 2])
        (folder / "b.png").write_bytes(b"")
        failed = []
        frames = open_source(folder).frames(on_error=lambda *failure: failed.append(failure))
        assert [(frame.name, frame.index) for frame in frames] == [("a", 0), ("d", 3)]
        assert [name for name, _ in failed] == ["b.png", "c.jpg"]
        assert "empty" in str(failed[0][1])
        assert "cut off" in str(failed[1][1])

    def test_a_broken_image_is_raised_where_nobody_hears_it(self, tmp_path):
        folder = write_images(tmp_path / "f", "a.png", "b.png")
        (folder / "b.png").write_bytes(b"\x89PNG but not really")
        frames = iter(open_source(folder))
        assert next(frames).name == "a"
        with pytest.raises(InputError, match=r"b\.png"):
            next(frames)

    def test_a_file_that_vanished_is_like_a_broken_one(self, tmp_path):
        path = write_images(tmp_path, "a.png") / "a.png"
        source = ImageFilesSource([path], name="a")
        path.unlink()
        failed = []
        assert list(source.frames(on_error=lambda *failure: failed.append(failure))) == []
        assert "No such file" in str(failed[0][1])


class TestVideoFile:
    def test_rate_length_and_times(self, tmp_path):
        with open_source(write_video(tmp_path / "flight.mp4", 8)) as source:
            assert (source.name, source.total, source.fps) == ("flight", 8, 12.5)
            frames = list(source)
        assert [frame.name for frame in frames][:2] == ["frame_000000", "frame_000001"]
        np.testing.assert_allclose([f.timestamp_s for f in frames], np.arange(8) / 12.5, atol=1e-3)

    def test_frames_look_like_what_was_written(self, tmp_path):
        frames = list(open_source(write_video(tmp_path / "flight.mp4")))
        for index, frame in enumerate(frames):
            written = colour_patches((48, 64), seed=index).astype(float)
            assert np.abs(frame.image - written).mean() < 12  # lossy, but the same picture

    def test_a_film_cut_off_gives_its_whole_frames_and_then_the_loss(self, tmp_path):
        path = write_video(tmp_path / "flight.avi", 20, codec="MJPG")
        whole = [frame.image for frame in open_source(path)]
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        failed, frames = [], []
        source = open_source(path)
        frames.extend(source.frames(on_error=lambda *failure: failed.append(failure)))
        assert 5 < len(frames) < 15
        np.testing.assert_array_equal([frame.image for frame in frames], whole[: len(frames)])
        ((name, error),) = failed
        assert name == f"frame_{len(frames):06d}"
        assert isinstance(error, SourceError)
        assert f"ends after {len(frames)} whole frames of 20" in str(error)

    def test_the_loss_is_raised_where_nobody_hears_it(self, tmp_path):
        path = write_video(tmp_path / "flight.avi", 20, codec="MJPG")
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(SourceError, match="cut off or damaged"):
            list(open_source(path))

    def test_a_film_without_its_index_does_not_open(self, tmp_path):
        path = write_video(tmp_path / "flight.mp4")
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(SourceError, match="cannot be decoded as a video"):
            open_source(path)

    @pytest.mark.parametrize("content", [b"", b"this is a text\n" * 100])
    def test_a_file_that_is_no_video(self, tmp_path, content):
        path = tmp_path / "notes.mp4"
        path.write_bytes(content)
        with pytest.raises(SourceError, match=r"notes\.mp4 cannot be decoded"):
            VideoSource(path)


class TestNames:
    def test_nothing_there_is_answered_with_the_nearest_name(self, tmp_path):
        write_images(tmp_path / "flight_07", "a.png")
        with pytest.raises(SourceError, match="no such file or folder; did you mean 'flight_07'"):
            open_source(tmp_path / "flight_7")
        with pytest.raises(SourceError, match="there is no folder"):
            open_source(tmp_path / "absent" / "flight")

    def test_an_empty_folder_and_an_idle_pattern(self, tmp_path):
        (tmp_path / "notes.txt").write_text("x")
        with pytest.raises(SourceError, match=r"holds no images \(1 other entries\)"):
            open_source(tmp_path)
        with pytest.raises(SourceError, match="no images match"):
            open_source(str(tmp_path / "*.jpg"))

    def test_a_file_of_another_kind(self, tmp_path):
        path = tmp_path / "log.txt"
        path.write_text("x")
        with pytest.raises(SourceError, match="neither an image nor a video"):
            open_source(path)

    def test_a_pipeline_may_be_longer_than_a_path(self):
        assert open_source(f"gst:videotestsrc {'! videoconvert ' * 500}").live

    def test_a_file_may_look_like_a_scheme(self, tmp_path, monkeypatch):
        monkeypatch.chdir(write_images(tmp_path, "gst.png"))
        (tmp_path / "gst.png").rename(tmp_path / "gst:photo.png")
        assert open_source("gst:photo.png").total == 1

    def test_an_unknown_scheme_is_answered_with_the_nearest(self):
        with pytest.raises(SourceError, match=r"nothing opens 'rstp:'; did you mean .*'rtsp'"):
            open_source("rstp://10.0.0.1/live")

    def test_a_scheme_may_be_added(self, tmp_path, monkeypatch):
        folder = write_images(tmp_path / "flight", "a.png")
        monkeypatch.setitem(SCHEMES, "twice", lambda text: open_source(text.removeprefix("twice:")))
        assert open_source(f"twice:{folder}").total == 1


@pytest.mark.real_data
class TestRealFiles:
    def test_a_real_video(self, real_data):
        with open_source(real_data / "video" / "uav_settlement_1280x720_10fps.mp4") as source:
            assert (source.total, source.fps) == (263, 10.0)
            first = next(iter(source))
        assert first.size_hw == (720, 1280)

    def test_a_real_flight_folder(self, real_data):
        with open_source(real_data / "video" / "frames_brighton_beach") as source:
            assert source.total == 18
            first = next(iter(source))
        assert (first.name, first.size_hw) == ("DJI_0018", (1125, 2000))

    def test_a_real_video_cut_in_half(self, real_data, tmp_path):
        data = (real_data / "video" / "uav_settlement_640x360_8s_mjpeg.avi").read_bytes()
        (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
        failed = []
        frames = open_source(tmp_path / "cut.avi").frames(on_error=lambda *f: failed.append(f))
        assert 30 < len(list(frames)) < 50
        assert len(failed) == 1
