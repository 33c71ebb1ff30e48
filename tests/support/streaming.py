"""Real cameras' stand-ins: GStreamer pipelines and an RTSP server, as processes of their own."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
PATIENCE_S = 60

_ELEMENTS = ("gdppay", "decodebin", "rtspsrc", "x264enc", "avdec_h264")
_BINDINGS = "import gi; gi.require_version('GstRtspServer', '1.0')"


def require_gstreamer():
    """Skips the tests of a module where GStreamer or a part of it is absent."""
    if shutil.which("gst-launch-1.0") is None:
        pytest.skip("GStreamer (gst-launch-1.0) is not installed", allow_module_level=True)
    for element in _ELEMENTS:
        if subprocess.run(["gst-inspect-1.0", "--exists", element], check=False).returncode:
            pytest.skip(f"GStreamer has no element {element}", allow_module_level=True)


def until(condition, *, every_s=0.01):
    """Waits for something that another thread or process brings about."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(every_s)


def free_port(kind=socket.SOCK_STREAM):
    """Returns a port that nobody uses now."""
    with socket.socket(type=kind) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Link:
    """A network cable to a namespace of its own, which can be cut."""

    def __init__(self):
        number = os.getpid()
        self._name = f"ccl{number}"
        net = f"10.{200 + number // 256 % 50}.{number % 256}"  # of this process alone
        self.ours, self.theirs = f"{net}.1", f"{net}.2"

    def __enter__(self):
        if shutil.which("ip") is None:
            pytest.skip("the program ip (iproute2) is not installed")
        holder = ["unshare", "--net", "sh", "-c", "echo ready && exec sleep 1000"]
        self._holder = subprocess.Popen(
            holder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if self._holder.stdout.readline() != "ready\n":
            self.__exit__()
            pytest.skip("this machine lets us have no network namespace")
        self.within = ["nsenter", "--target", str(self._holder.pid), "--net"]
        far = f"{self._name}b"
        added = self._ip("link", "add", self._name, "type", "veth", "peer", "name", far,
                         "netns", str(self._holder.pid), check=False)  # fmt: skip
        if added.returncode:
            self.__exit__()
            pytest.skip(f"this machine lets us have no virtual cable: {added.stderr.strip()}")
        self._ip("addr", "add", f"{self.ours}/30", "dev", self._name)
        self._ip("link", "set", self._name, "up")
        self._ip("addr", "add", f"{self.theirs}/30", "dev", far, within=self.within)
        self.mend()
        return self

    def cut(self):
        """Lets packets vanish without an answer."""
        self._ip("link", "set", f"{self._name}b", "down", within=self.within)

    def mend(self):
        self._ip("link", "set", f"{self._name}b", "up", within=self.within)

    def _ip(self, *words, within=(), check=True):
        command = [*within, "ip", *words]
        return subprocess.run(command, check=check, capture_output=True, text=True)

    def __exit__(self, *_):
        self._ip("link", "del", self._name, check=False)  # the namespace itself takes its time
        self._holder.kill()
        self._holder.communicate()


class RtspServer:
    """A real RTSP server on a port of its own, which may be killed, frozen and started again."""

    def __init__(self, *, loss=0.0, address="127.0.0.1", within=(), folder=None, port=None):
        """Serves from an address, run by a command such as one that enters a namespace.

        With a folder it also takes streams, at ``taken_url``, and writes their pictures there.
        """
        if (
            shutil.which(SYSTEM_PYTHON) is None
            or subprocess.run(
                [SYSTEM_PYTHON, "-c", _BINDINGS], capture_output=True, check=False
            ).returncode
        ):
            pytest.skip("the RTSP server (gir1.2-gst-rtsp-server-1.0, python3-gi) is not installed")
        self.port = port or free_port()
        self.url = f"rtsp://{address}:{self.port}/live"
        self.taken_url = f"rtsp://{address}:{self.port}/taken"
        self._command = [*within, SYSTEM_PYTHON, str(SERVER), address, str(self.port), str(loss)]
        self._command += [str(folder)] if folder is not None else []
        self._process = None

    def start(self):
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout.readline() == "ready\n"

    def freeze(self):
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()
