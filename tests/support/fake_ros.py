"""Stand-ins for rclpy and the messages, with the fields of the .msg files and no others.

As the classes that ROS makes, messages refuse fields that they do not have and values of another
type. Publishers and subscriptions of one topic name in this process are joined.
"""

import array
import sys
import types
from dataclasses import dataclass, field


class _Strict:
    __slots__ = ()

    def __setattr__(self, name, value):
        kind = self.FIELDS[name]  # an unknown field is a KeyError
        assert isinstance(value, kind), f"{name} takes {kind}, got {type(value)}"
        if kind is array.array:
            assert value.typecode == "B"
        object.__setattr__(self, name, value)

    def __init__(self, **values):
        for name, kind in self.FIELDS.items():
            setattr(self, name, values.pop(name) if name in values else _default(kind))
        assert not values


def _default(kind):
    return array.array("B") if kind is array.array else kind()


def _kind(name, **fields):
    return type(name, (_Strict,), {"__slots__": tuple(fields), "FIELDS": fields})


Time = _kind("Time", sec=int, nanosec=int)
Header = _kind("Header", stamp=Time, frame_id=str)
Image = _kind(
    "Image", header=Header, height=int, width=int, encoding=str, is_bigendian=int, step=int,
    data=array.array,
)  # fmt: skip
VisionClass = _kind("VisionClass", class_id=int, class_name=str)
LabelInfo = _kind("LabelInfo", header=Header, class_map=list, threshold=float)


@dataclass
class QoSProfile:
    depth: int
    durability: str = "volatile"
    reliability: str = "reliable"


SENSOR_DATA = QoSProfile(depth=5, reliability="best_effort")


@dataclass
class Graph:
    """Who listens to what, and what was published last where it is latched."""

    listeners: dict = field(default_factory=dict)
    published: dict = field(default_factory=dict)
    profiles: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)
    logged: list = field(default_factory=list)
    timers: list = field(default_factory=list)
    shut_down: bool = False

    def publish(self, topic, message):
        self.published.setdefault(topic, []).append(message)
        for listener in self.listeners.get(topic, []):
            listener(message)


class _Publisher:
    def __init__(self, graph, kind, topic):
        self._graph, self._kind, self._topic = graph, kind, topic

    def publish(self, message):
        assert type(message) is self._kind
        self._graph.publish(self._topic, message)

    def get_subscription_count(self):
        return len(self._graph.listeners.get(self._topic, []))


def _node_class(graph):
    class Node:
        def __init__(self, name):
            self.name = name

        def declare_parameter(self, name, default):
            return types.SimpleNamespace(value=graph.parameters.get(name, default))

        def create_publisher(self, kind, topic, profile):
            graph.profiles[topic] = profile
            return _Publisher(graph, kind, topic)

        def create_subscription(self, kind, topic, callback, profile):
            graph.profiles[topic] = profile
            graph.listeners.setdefault(topic, []).append(callback)

        def create_timer(self, period_s, callback):
            graph.timers.append(callback)

        def get_clock(self):
            stamped = types.SimpleNamespace(to_msg=lambda: Time(sec=7, nanosec=8))
            return types.SimpleNamespace(now=lambda: stamped)

        def get_logger(self):
            def log(text, **_):
                graph.logged.append(text)

            return types.SimpleNamespace(info=log, warning=log, fatal=log)

        def destroy_node(self):
            graph.shut_down = True

    return Node


def install(monkeypatch):
    """Makes the modules importable for one test; returns the graph of its nodes."""
    graph = Graph()
    program = {"init": lambda args: None, "spin": lambda node: None, "try_shutdown": lambda: None}
    modules = {
        "rclpy": program,
        "rclpy.node": {"Node": _node_class(graph)},
        "rclpy.qos": {
            "QoSProfile": QoSProfile,
            "qos_profile_sensor_data": SENSOR_DATA,
            "DurabilityPolicy": types.SimpleNamespace(TRANSIENT_LOCAL="transient_local"),
            "ReliabilityPolicy": types.SimpleNamespace(RELIABLE="reliable"),
        },
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": Image},
        "vision_msgs": {},
        "vision_msgs.msg": {"LabelInfo": LabelInfo, "VisionClass": VisionClass},
    }  # fmt: skip
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "cclseg.ros2", raising=False)
    return graph
