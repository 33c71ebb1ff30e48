"""The supervisor: looks after a stream once a second and passes on what it sees."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..closing import Closing
from .health import About, Health, boot_id, in_words, now_since_boot_s
from .monitor import Monitor
from .notify import ServiceManager

if TYPE_CHECKING:
    from ..result import Segmentation
    from ..stream import Stream
    from .watchdog import WatchdogRules

_log = logging.getLogger(__name__)

STALE_AFTER_S = 15.0
"""Age from which on a health file tells of a process that hangs or is gone."""

_LEAVE_AFTER_S = 5.0


class Supervisor(Closing):
    """Watches a stream in a thread of its own while its ``with`` block runs.

    It restarts sources that bring no frames, writes the health file and tells the service manager.
    That hears nothing more when only a new process would help, so that it makes one.

    Args:
        health_file: Where to write once a second how it is; None for nowhere.
        rules: How long to wait for frames and results.
        manager: Who is told; None for the one that started this process, if one did.
        look_every_s: Time between two looks.

    Example:
        >>> with segment.stream(camera) as stream:  # doctest: +SKIP
        ...     with Supervisor(health_file=Path("/run/cclseg/health.json")) as supervisor:
        ...         supervisor.watch(stream)
        ...         for out in stream:
        ...             steer(out.mask)
    """

    def __init__(
        self,
        *,
        health_file: Path | None = None,
        rules: WatchdogRules | None = None,
        manager: ServiceManager | None = None,
        look_every_s: float = 1.0,
    ) -> None:
        self._monitor = Monitor(rules)
        self._health_file = None if health_file is None else _HealthFile(health_file)
        self._manager = manager or ServiceManager()
        self._look_every_s = look_every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cclseg-supervisor", daemon=True)
        self.health = self._monitor.look()
        """What the last look saw."""

    def describe(self, about: About) -> None:
        """Says what the stream runs."""
        self._monitor.about = about

    def watch(self, stream: Stream) -> None:
        """Begins to watch a stream, which has not started yet; the service is then ready."""
        if not self._monitor.about.model:
            names = ", ".join(source.name for source in stream.sources.values())
            self.describe(About(names, stream.spec.name, precision=stream.spec.precision))
        self._monitor.watch(stream)
        self._manager.ready()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the streams; one of them alone is called ""."""
        return self._monitor.names

    def newest(self, name: str = "") -> Segmentation | None:
        """Returns the newest result of a stream, None before the first one."""
        return self._monitor.newest(name)

    def __enter__(self) -> Supervisor:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop_looking()
        if error is None or isinstance(error, KeyboardInterrupt):
            self._monitor.end("ended")
        else:
            self._monitor.end("failed", str(error) or type(error).__name__)
        self._look()

    def close(self) -> None:
        """Ends the watch without an error, if it runs. May be called twice."""
        if self._thread.is_alive():
            self.__exit__(None, None, None)

    def _stop_looking(self) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(_LEAVE_AFTER_S)

    def _run(self) -> None:
        while not self._over.wait(self._look_every_s):
            self._look()

    def _look(self) -> None:
        self.health = health = self._monitor.look()
        if self._health_file is not None:
            self._health_file.write(health)
        if health.state == "stopping" or self._over.is_set():
            self._manager.stopping()
        fps = sum(stream.fps for stream in health.streams)
        self._manager.status(in_words(health.state, health.reason, fps))
        if not self._monitor.stuck:
            self._manager.still_alive()


class _HealthFile:
    """A file that always holds one whole look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failing = False

    def write(self, health: Health) -> None:
        """Replaces the file; nothing is forced to the disk, whose flash would wear out.

        A place that cannot be written to ends no flight: it is logged once, and readers find the
        file stale.
        """
        written = {
            "since_boot_s": now_since_boot_s(),
            "boot": boot_id(),
            "stale_after_s": STALE_AFTER_S,
        }
        text = json.dumps(health.to_dict() | {"written": written}, indent=1, ensure_ascii=False)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        try:
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(self._path)
        except OSError as error:
            if not self._failing:
                _log.warning("cannot write %s: %s; readers take it as stale", self._path, error)
            self._failing = True
            return
        self._failing = False
