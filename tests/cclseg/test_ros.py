"""ROS 2: messages there and back, and the node against stand-ins for rclpy.

It has not met a real ROS 2 here: rclpy is in no package index.
"""

import array
import importlib
import subprocess
import sys

import fake_ros
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import colour_patches
from streaming import until

from cclseg import Segmenter
from cclseg.errors import InputError, MissingDependencyError
from cclseg.ros_images import fields_of_confidence, fields_of_mask, image_of
from cclseg.sources.topic import TopicSource


def image_message(pixels, encoding, *, padding=0, bigendian=0, sec=0, nanosec=0):
    """A message of (H, W) or (H, W, C) numbers."""
    height, width = pixels.shape[:2]
    wide = pixels.dtype.newbyteorder(">" if bigendian else "<")
    rows = np.ascontiguousarray(pixels.astype(wide)).reshape(height, -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    header = fake_ros.Header(stamp=fake_ros.Time(sec=sec, nanosec=nanosec), frame_id="camera")
    return fake_ros.Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=bigendian,
        step=int(padded.shape[1]),
        data=array.array("B", padded.tobytes()),
    )


def random_image(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


class TestImages:
    @given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 5))
    def test_rows_may_have_padding(self, height, width, padding):
        pixels = random_image((height, width, 3))
        message = image_message(pixels, "bgr8", padding=padding)
        np.testing.assert_array_equal(image_of(message), pixels)

    @pytest.mark.parametrize(
        ("encoding", "channels", "order"),
        [
            ("bgr8", 3, [0, 1, 2]),
            ("rgb8", 3, [2, 1, 0]),
            ("bgra8", 4, [0, 1, 2]),
            ("rgba8", 4, [2, 1, 0]),
            ("8UC3", 3, [0, 1, 2]),
            ("8UC1", 1, [0, 0, 0]),
            ("mono8", 1, [0, 0, 0]),
        ],
    )
    def test_colours_are_put_in_order(self, encoding, channels, order):
        pixels = random_image((5, 7, channels))
        got = image_of(image_message(pixels, encoding, padding=3))
        np.testing.assert_array_equal(got, pixels[:, :, order])

    @pytest.mark.parametrize("bigendian", [0, 1])
    @pytest.mark.parametrize("encoding", ["mono16", "16UC1", "bgr16", "rgb16"])
    def test_of_sixteen_bits_the_upper_eight_are_kept(self, encoding, bigendian):
        channels = 3 if "r16" in encoding or "b16" in encoding else 1
        pixels = random_image((4, 6, channels), np.uint16)
        got = image_of(image_message(pixels, encoding, padding=1, bigendian=bigendian))
        order = {"rgb16": [2, 1, 0], "bgr16": [0, 1, 2]}.get(encoding, [0, 0, 0])
        np.testing.assert_array_equal(got, (pixels >> 8).astype(np.uint8)[:, :, order])

    def test_the_image_is_a_copy(self):
        message = image_message(random_image((4, 6, 3)), "bgr8")
        image = image_of(message)
        before = image.copy()
        message.data[0] ^= 255
        np.testing.assert_array_equal(image, before)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"encoding": "bgr9"}, "did you mean 'bgr8'"),
            ({"encoding": "bayer_rggb8"}, "encoded as 'bayer_rggb8'"),
            ({"height": 0}, "6 x 0"),
            ({"step": 17}, "rows of at least 18"),
            ({"height": 5}, "and 5 of them"),
        ],
    )
    def test_what_contradicts_itself_is_refused(self, changes, reason):
        message = image_message(random_image((4, 6, 3)), "bgr8")
        for name, value in changes.items():
            setattr(message, name, value)
        with pytest.raises(InputError, match=reason):
            image_of(message)

    def test_masks_go_out_as_they_are(self):
        mask = random_image((5, 7))
        fields = fields_of_mask(mask)
        assert (fields.encoding, fields.step, fields.is_bigendian) == ("mono8", 7, 0)
        np.testing.assert_array_equal(np.frombuffer(fields.data, np.uint8).reshape(5, 7), mask)

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_many_classes_go_out_with_the_lower_byte_first(self, order):
        mask = random_image((5, 7), np.uint16).astype(f"{order}u2")
        fields = fields_of_mask(mask)
        assert (fields.encoding, fields.step) == ("mono16", 14)
        np.testing.assert_array_equal(np.frombuffer(fields.data, "<u2").reshape(5, 7), mask)

    def test_confidence_goes_out_in_steps_of_a_255th(self):
        fields = fields_of_confidence(np.array([[0.0, 0.5, 1.0]], np.float32))
        assert list(fields.data) == [0, 128, 255]


class TestTopicSource:
    def test_the_newest_message_is_taken_and_others_are_counted(self):
        source = TopicSource("topic", lambda message: np.full((2, 2, 3), message, np.uint8))
        for number in (1, 2, 3):
            source.put(number)
        frames = iter(source)
        first = next(frames)
        assert first.image[0, 0, 0] == 3
        assert source.dropped == 2
        assert source.message_of(first) == 3
        source.close()
        assert list(frames) == []

    def test_messages_of_frames_without_a_result_are_forgotten(self):
        source = TopicSource("topic", lambda message: np.zeros((2, 2, 3), np.uint8))
        frames = iter(source)
        taken = []
        for number in range(5):
            source.put(number)
            taken.append(next(frames))
        assert source.message_of(taken[3]) == 3
        assert source.message_of(taken[4]) == 4
        assert not source._messages
        source.close()


@pytest.fixture
def graph(monkeypatch, network):
    graph = fake_ros.install(monkeypatch)
    graph.parameters = {"model": str(network), "backend": "onnxruntime", "threads": 1}
    return graph


@pytest.fixture
def node(graph):
    module = importlib.import_module("cclseg.ros2")
    node = module.SegmentationNode()
    yield node
    node.close()
    node.close()


class TestNode:
    def test_masks_have_the_stamps_of_their_images(self, node, graph, network):
        expected = {}
        with Segmenter(network, backend="onnxruntime", threads=1) as segment:
            for sec in range(5):
                image = colour_patches((48, 64), seed=sec)
                expected[sec] = segment(image).mask
                graph.publish("image", image_message(image, "bgr8", padding=4, sec=sec, nanosec=5))
                until(lambda sec=sec: len(_masks(graph)) > sec)
        for sec, message in enumerate(_masks(graph)):
            assert (message.header.stamp.sec, message.header.stamp.nanosec) == (sec, 5)
            assert message.header.frame_id == "camera"
            assert (message.encoding, message.height, message.width) == ("mono8", 48, 64)
            mask = np.frombuffer(message.data, np.uint8).reshape(48, message.step)
            np.testing.assert_array_equal(mask, expected[sec])

    def test_the_classes_are_told_once_and_latched(self, node, graph):
        (info,) = graph.published["segmentation/label_info"]
        names = {one.class_id: one.class_name for one in info.class_map}
        assert names == {0: "redest", 1: "greenest", 2: "blueest"}
        profile = graph.profiles["segmentation/label_info"]
        assert (profile.durability, profile.reliability) == ("transient_local", "reliable")
        assert graph.profiles["image"] is fake_ros.SENSOR_DATA
        assert graph.profiles["segmentation/mask"] is fake_ros.SENSOR_DATA

    def test_confidence_is_told_when_somebody_listens(self, node, graph):
        message = image_message(colour_patches((48, 64)), "bgr8")
        graph.publish("image", message)
        until(lambda: _masks(graph))
        assert "segmentation/confidence" not in graph.published
        graph.listeners["segmentation/confidence"] = [lambda message: None]
        graph.publish("image", message)
        until(lambda: graph.published.get("segmentation/confidence"))
        (told,) = graph.published["segmentation/confidence"]
        assert (told.encoding, told.step, len(told.data)) == ("mono8", 64, 48 * 64)

    def test_images_that_come_too_fast_are_counted(self, node, graph):
        message = image_message(colour_patches((480, 640)), "rgb8")
        for _ in range(60):
            graph.publish("image", message)
        until(lambda: node.published + node.dropped == 60)
        graph.timers[0]()
        assert f"{node.published} masks, {node.dropped} images dropped" in graph.logged[-1]

    def test_an_image_that_cannot_be_read_is_said_and_the_next_one_works(self, node, graph):
        good = image_message(colour_patches((48, 64)), "bgr8")
        bad = image_message(colour_patches((48, 64)), "bgr8")
        bad.encoding = "bayer_rggb8"
        graph.publish("image", bad)
        until(lambda: node.refused == 1)
        assert "bayer_rggb8" in graph.logged[-1]
        graph.publish("image", good)
        until(lambda: node.published == 1)

    def test_the_program_ends_in_good_order(self, graph):
        importlib.import_module("cclseg.ros2").main([])
        assert graph.shut_down

    def test_a_model_that_is_not_there_is_said(self, graph):
        graph.parameters["model"] = "ccl-lite9"
        with pytest.raises(SystemExit, match="did you mean 'ccl-lite0'"):
            importlib.import_module("cclseg.ros2").main([])


def _masks(graph):
    return graph.published.get("segmentation/mask", [])


def test_without_ros_it_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "rclpy", None)
    monkeypatch.delitem(sys.modules, "cclseg.ros2", raising=False)
    with pytest.raises(MissingDependencyError, match=r"source the setup\.bash"):
        importlib.import_module("cclseg.ros2")


def test_messages_alone_need_numpy_only():
    code = "import sys, cclseg.ros_images; print({'cv2', 'rclpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
