"""A ROS 2 node: images in, masks out, with the stamps of the images.

    python -m cclseg.ros2 --ros-args -r image:=/camera/image_raw -p model:=ccl-nano

=================  ==========================  ==================================================
topic              message                     holds
=================  ==========================  ==================================================
``image``          sensor_msgs/Image (in)      pictures of a camera
``mask``           sensor_msgs/Image           class ids, mono8 (mono16 beyond 255 classes)
``confidence``     sensor_msgs/Image           mono8, 255 is certain; only while somebody listens
``label_info``     vision_msgs/LabelInfo       the classes' names; latched (transient local)
=================  ==========================  ==================================================

Everything but ``image`` is below ``segmentation/``. Images have the quality of service of sensor
data. Parameters: ``model``, ``backend``, ``threads`` (0: all).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from .errors import CclsegError, MissingDependencyError
from .ros_images import ImageFields, fields_of_confidence, fields_of_mask, image_of
from .segmenter import Segmenter
from .sources.topic import TopicSource

if TYPE_CHECKING:
    from .result import Segmentation

try:
    import rclpy
    from rclpy.node import Node
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
    from sensor_msgs.msg import Image
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError as error:
    raise MissingDependencyError(
        f"the ROS 2 node needs '{error.name}', which no pip install brings; source the setup.bash "
        "of a ROS 2 installation with the package vision_msgs first"
    ) from error

_REPORT_EVERY_S = 10.0


class SegmentationNode:
    """Segments the newest image of a topic, and publishes what it finds.

    Attributes:
        node: What ROS sees; to be spun by the caller.
        published: Masks so far.
        refused: Images that could not be segmented.
    """

    def __init__(self) -> None:
        self.node = Node("cclseg")
        self.published = 0
        self.refused = 0
        self._segmenter = Segmenter(
            self._parameter("model", "ccl-lite0"),
            backend=self._parameter("backend", "auto"),
            threads=self._parameter("threads", 0) or None,
        )
        self._topic = TopicSource[Any]("ros2", image_of)
        self._results = self._segmenter.stream(self._topic, policy="latest", on_error=self._refuse)
        self._masks = self._publisher("mask")
        self._confidences = self._publisher("confidence")
        self._tell_labels()
        self.node.create_subscription(Image, "image", self._topic.put, qos_profile_sensor_data)
        self.node.create_timer(_REPORT_EVERY_S, self._report)
        self._worker = threading.Thread(target=self._run, name="cclseg-ros2", daemon=True)
        self._worker.start()

    @property
    def dropped(self) -> int:
        """Images that came faster than they could be segmented."""
        stats = self._results.stats()
        return self._topic.dropped + stats.dropped + stats.superseded

    def close(self) -> None:
        """Ends the work and the node. May be called twice."""
        self._topic.close()
        self._worker.join()
        self._segmenter.close()
        self.node.destroy_node()

    def _parameter(self, name: str, default: Any) -> Any:  # noqa: ANN401 - of the default's type
        return self.node.declare_parameter(name, default).value

    def _publisher(self, name: str) -> Any:  # noqa: ANN401 - rclpy has no types
        return self.node.create_publisher(Image, f"segmentation/{name}", qos_profile_sensor_data)

    def _tell_labels(self) -> None:
        """Publishes the classes once; who comes later gets them too."""
        latched = QoSProfile(
            depth=1,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
            reliability=ReliabilityPolicy.RELIABLE,
        )
        self._labels = self.node.create_publisher(LabelInfo, "segmentation/label_info", latched)
        names = self._segmenter.spec.class_names
        message = LabelInfo()
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.class_map = [VisionClass(class_id=i, class_name=n) for i, n in enumerate(names)]
        message.threshold = 0.0  # every pixel gets its most probable class
        self._labels.publish(message)

    def _run(self) -> None:
        try:
            with self._results:
                for result in self._results:
                    self._publish(result)
        except CclsegError as error:
            self.node.get_logger().fatal(str(error))
            rclpy.try_shutdown()

    def _publish(self, result: Segmentation) -> None:
        assert result.frame is not None
        header = self._topic.message_of(result.frame).header
        self._masks.publish(_message(fields_of_mask(result.mask), header))
        if self._confidences.get_subscription_count():
            fields = fields_of_confidence(result.confidence)
            self._confidences.publish(_message(fields, header))
        self.published += 1

    def _refuse(self, name: str, error: CclsegError) -> None:
        self.refused += 1
        self.node.get_logger().warning(str(error), throttle_duration_sec=_REPORT_EVERY_S)

    def _report(self) -> None:
        self.node.get_logger().info(
            f"{self.published} masks, {self.dropped} images dropped, {self.refused} refused"
        )


def _message(fields: ImageFields, header: Any) -> Any:  # noqa: ANN401 - rclpy has no types
    message = Image()
    message.header = header
    message.height, message.width = fields.height, fields.width
    message.encoding, message.is_bigendian = fields.encoding, fields.is_bigendian
    message.step, message.data = fields.step, fields.data
    return message


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the node until ROS or the terminal ends it."""
    rclpy.init(args=arguments)
    try:
        with closing(SegmentationNode()) as node, suppress(KeyboardInterrupt):
            rclpy.spin(node.node)
    except CclsegError as error:
        sys.exit(f"error: {error}")
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main(sys.argv)
