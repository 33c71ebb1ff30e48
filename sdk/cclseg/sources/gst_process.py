"""A GStreamer pipeline as a child process: whatever a camera or decoder does, it does it there.

The child writes its frames into a pipe. If it crashes, hangs or is killed, this process reads the
end of the pipe or nothing, and is none the worse for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence

from ..errors import MissingDependencyError, SourceError
from .gdp import GdpReader, RawFrame
from .live import DisconnectedError, EndOfStream

LAUNCHER = "gst-launch-1.0"

_PIPE_BYTES = 1 << 20
_LEAVE_AFTER_S = 2.0
_REMEMBERED_BYTES = 1 << 14

_PACKAGES = {
    "gdppay": "gstreamer1.0-plugins-bad",
    "rtspsrc": "gstreamer1.0-plugins-good",
    "udpsrc": "gstreamer1.0-plugins-good",
    "v4l2src": "gstreamer1.0-plugins-good",
    "rtpjitterbuffer": "gstreamer1.0-plugins-good",
    "videoconvert": "gstreamer1.0-plugins-base",
    "decodebin": "gstreamer1.0-plugins-base",
    "nvarguscamerasrc": "nvidia-l4t-gstreamer (on a Jetson)",
    "nvvidconv": "nvidia-l4t-gstreamer (on a Jetson)",
}


class GstProcess:
    """A running pipeline that ends in frames.

    Args:
        words: The pipeline up to its decoded frames, one argument each; no shell reads them.

    Raises:
        MissingDependencyError: GStreamer is not installed.
    """

    def __init__(self, words: Sequence[str]) -> None:
        if shutil.which(LAUNCHER) is None:
            raise MissingDependencyError(
                f"cameras and streams need GStreamer's {LAUNCHER}, which is not installed; run: "
                "apt install gstreamer1.0-tools gstreamer1.0-plugins-good "
                "gstreamer1.0-plugins-bad gstreamer1.0-libav"
            )
        self._frames, theirs = os.pipe()
        try:
            with contextlib.suppress(OSError):  # a smaller pipe only costs more calls
                fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._child = subprocess.Popen(
                _command(words, theirs),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs,),
                env=os.environ | {"LC_ALL": "C"},
                # Ctrl-C in a terminal is for us; the pipeline goes on until it is closed.
                start_new_session=True,
            )
        except BaseException:
            os.close(self._frames)
            raise
        finally:
            os.close(theirs)
        assert self._child.stderr is not None
        os.set_blocking(self._child.stderr.fileno(), False)
        self._reader = GdpReader(self._frames)
        self._said = b""

    def next_frame(self, timeout_s: float) -> RawFrame | None:
        """Returns the next frame, or None if it is not there in time.

        Raises:
            EndOfStream: The pipeline has come to its natural end.
            DisconnectedError: It failed.
            SourceError: It can never work: an element is missing, or the text is no pipeline.
        """
        self._hear()
        try:
            return self._reader.read(timeout_s)
        except EOFError:
            self._raise_end()
            raise AssertionError from None

    def close(self) -> None:
        """Ends the child. May be called twice."""
        if self._frames < 0:
            return
        os.close(self._frames)
        self._frames = -1
        assert self._child.stderr is not None
        self._child.send_signal(signal.SIGINT)  # lets it say goodbye to an RTSP server
        try:
            self._child.wait(_LEAVE_AFTER_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stderr.close()

    def _hear(self) -> None:
        """Takes what the child has said, so that it never waits for a listener."""
        assert self._child.stderr is not None
        with contextlib.suppress(BlockingIOError):
            while text := os.read(self._child.stderr.fileno(), _REMEMBERED_BYTES):
                self._said = (self._said + text)[-_REMEMBERED_BYTES:]

    def _raise_end(self) -> None:
        try:
            status = self._child.wait(_LEAVE_AFTER_S)
        except subprocess.TimeoutExpired as error:
            raise DisconnectedError("the pipeline ended its output, but not itself") from error
        self._hear()
        text = self._said.decode(errors="replace")
        missing = re.search(r'no element "([^"]+)"', text)
        if missing:
            package = _PACKAGES.get(missing[1])
            advice = f"apt install {package}" if package else "install the plug-in that brings it"
            raise SourceError(f"GStreamer has no element '{missing[1]}'; {advice}")
        wrong = re.search(r"erroneous pipeline: (.+)", text)
        if wrong:
            raise SourceError(f"this is no GStreamer pipeline: {wrong[1]}; try it in {LAUNCHER}")
        if status == 0:
            raise EndOfStream
        raise DisconnectedError(_reason(text) or f"the pipeline ended with status {status}")


def _command(words: Sequence[str], descriptor: int) -> list[str]:
    tail = ["!", "gdppay", "!", "fdsink", f"fd={descriptor}", "sync=false"]
    command = [LAUNCHER, "-q", *words, *tail]
    # So that no pipeline outlives us, however we end. The signal comes when the thread that
    # started the child ends; that thread closes the child before.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command


def _reason(text: str) -> str:
    """Picks the error and its detail out of what gst-launch says."""
    error = re.search(r"ERROR: from element [^ ]*: (.+)", text)
    if error is None:
        return ""
    detail = re.search(r"Additional debug info:\n.+\n(.+)", text[error.start() :])
    reason = error[1].rstrip(".")
    return f"{reason} ({detail[1].rstrip('.')})" if detail else reason
