"""Real cameras' stand-ins: GStreamer pipelines and an RTSP server, as processes of their own."""

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


def until(condition):
    """Waits for something that another thread or process brings about."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class RtspServer:
    """A real RTSP server on a port of its own, which may be killed, frozen and started again."""

    def __init__(self, *, loss=0.0):
        if (
            shutil.which(SYSTEM_PYTHON) is None
            or subprocess.run(
                [SYSTEM_PYTHON, "-c", _BINDINGS], capture_output=True, check=False
            ).returncode
        ):
            pytest.skip("the RTSP server (gir1.2-gst-rtsp-server-1.0, python3-gi) is not installed")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}/live"
        self._loss = loss
        self._process = None

    def start(self):
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, str(SERVER), str(self.port), str(self._loss)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
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
