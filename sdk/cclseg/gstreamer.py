"""GStreamer pipelines as child processes: what a camera, decoder or encoder does, it does there.

No binding is needed, only the programs ``gst-launch-1.0`` and ``gst-inspect-1.0``. If a child
crashes, hangs or is killed, this process reads the end of a pipe or nothing, and is none the worse.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache

from .errors import MissingDependencyError

_LAUNCHER, _INSPECTOR = "gst-launch-1.0", "gst-inspect-1.0"
_REMEMBERED_BYTES = 1 << 14
_RANKS = "GST_PLUGIN_FEATURE_RANK"

_PACKAGES = {
    "gstreamer1.0-plugins-bad": ("gdppay", "gdpdepay", "h264parse", "openh264enc"),
    "gstreamer1.0-plugins-base": ("decodebin", "videoconvert"),
    "gstreamer1.0-plugins-good": (
        "mp4mux", "rtph264pay", "rtpjitterbuffer", "rtspsrc", "udpsink", "udpsrc", "v4l2src",
    ),
    "gstreamer1.0-plugins-ugly": ("x264enc",),
    "gstreamer1.0-rtsp": ("rtspclientsink",),
    "nvidia-l4t-gstreamer (on a Jetson)": ("nvarguscamerasrc", "nvv4l2h264enc", "nvvidconv"),
}  # fmt: skip
"""Elements by the Debian package that brings them."""


class Pipeline:
    """A running pipeline.

    Args:
        words: The pipeline, one argument each; no shell reads them.
        descriptors: Open files that its elements read and write by their numbers.
        dies_with_us: Kill it when this process ends, however that happens. It must then be closed
            by the thread that made it, because the end of that thread kills it too.
        ranks: Ranks of elements by name, from which ``decodebin`` chooses; those that are not
            installed are passed over. Ranks in the environment (GST_PLUGIN_FEATURE_RANK) go first.

    Raises:
        MissingDependencyError: GStreamer is not installed.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        descriptors: Sequence[int],
        dies_with_us: bool = False,
        ranks: Mapping[str, int] | None = None,
    ) -> None:
        if shutil.which(_LAUNCHER) is None:
            raise MissingDependencyError(
                f"cameras and streams need GStreamer's {_LAUNCHER}, which is not installed; run: "
                "apt install gstreamer1.0-tools gstreamer1.0-plugins-good "
                "gstreamer1.0-plugins-bad gstreamer1.0-libav"
            )
        setpriv = shutil.which("setpriv") if dies_with_us else None
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        self._child = subprocess.Popen(
            [*guard, _LAUNCHER, "-q", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=tuple(descriptors),
            env=os.environ | {"LC_ALL": "C", _RANKS: _with_own_ranks(ranks or {})},
            # Ctrl-C in a terminal is for us; the pipeline goes on until it is ended.
            start_new_session=True,
        )
        assert self._child.stderr is not None
        self._errors = self._child.stderr
        os.set_blocking(self._errors.fileno(), False)
        self._said = b""

    def said(self) -> str:
        """Returns the last of what the child has said, so that it never waits for a listener."""
        if not self._errors.closed:
            with contextlib.suppress(BlockingIOError):
                while text := os.read(self._errors.fileno(), _REMEMBERED_BYTES):
                    self._said = (self._said + text)[-_REMEMBERED_BYTES:]
        return self._said.decode(errors="replace")

    def reason(self) -> str:
        """Picks the error and its detail out of what the child has said; may be empty."""
        text = self.said()
        error = re.search(r"ERROR: from element [^ ]*: (.+)", text)
        if error is None:
            return ""
        detail = re.search(r"Additional debug info:\n.+\n(.+)", text[error.start() :])
        reason = error[1].rstrip(".")
        return f"{reason} ({detail[1].rstrip('.')})" if detail else reason

    def wait(self, timeout_s: float) -> int | None:
        """Waits for the end and returns the exit status; None if it does not come in time."""
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self, *, patience_s: float) -> None:
        """Asks it to end, and kills it when it does not. May be called twice."""
        self._child.send_signal(signal.SIGINT)
        if self.wait(patience_s) is None:
            self._child.kill()
            self._child.wait()
        self.said()
        self._errors.close()


def _with_own_ranks(ranks: Mapping[str, int]) -> str:
    """Puts ranks before those of the environment: of two, GStreamer takes the last."""
    own = [f"{name}:{rank}" for name, rank in ranks.items()]
    return ",".join([*own, *filter(None, [os.environ.get(_RANKS)])])


@lru_cache(maxsize=32)
def has_element(name: str) -> bool:
    """Says whether an element is installed, and GStreamer at all."""
    if shutil.which(_INSPECTOR) is None or shutil.which(_LAUNCHER) is None:
        return False
    return subprocess.run([_INSPECTOR, "--exists", name], check=False).returncode == 0


def elements_in(words: Sequence[str]) -> list[str]:
    """Returns the elements among the words of a pipeline, which may begin with ``!``.

    Formats, such as ``video/x-raw,format=BGR``, are none.
    """
    before = ("!", *words)
    return [
        word
        for left, word in zip(before, words, strict=False)
        if left == "!" and word != "!" and "/" not in word
    ]


def missing_element(name: str) -> str:
    """Says that an element is missing and what brings it."""
    package = next((package for package, names in _PACKAGES.items() if name in names), None)
    advice = f"apt install {package}" if package else "install the plug-in that brings it"
    return f"GStreamer has no element '{name}'; {advice}"
