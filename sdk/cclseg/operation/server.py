"""A stream's page, health and metrics over HTTP; :mod:`cclseg.operation.site` has the paths.

Everything runs in one thread with an event loop of its own. It reads what the supervisor saw and
the newest result, so neither many clients nor slow ones hold the stream up.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..closing import Closing
from ..errors import SinkError
from .site import Limits, Site
from .supervisor import Supervisor

if TYPE_CHECKING:
    from ..stream import Stream
    from .watchdog import WatchdogRules

_log = logging.getLogger(__name__)

_LEAVE_AFTER_S = 10.0


class PageServer(Closing):
    """Serves what a supervisor knows, from its construction until it is closed.

    Args:
        supervisor: Whom to ask.
        port: Where to listen; 0 for any free port.
        address: An address of this machine; others than 127.0.0.1 let other machines in.
        names: Further host names by which this machine is called. Addresses, ``localhost`` and
            its own name are known; requests under other names are refused.
        limits: What clients may ask for.

    Attributes:
        url: Where the page is.

    Raises:
        SinkError: Nobody can listen there.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        port: int = 8080,
        address: str = "127.0.0.1",
        names: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> None:
        self._socket = _listening(address, port)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        if not ipaddress.ip_address(host).is_loopback:
            _log.warning(
                "whoever reaches %s sees the pictures: there is no password and no encryption; "
                "where that is not wanted, listen on 127.0.0.1 and use an SSH tunnel", self.url,
            )  # fmt: skip
        self._site = Site(supervisor, (*_own_names(), *names), limits or Limits())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cclseg-page", daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def watchers(self) -> int:
        """How many see pictures now."""
        return self._site.watchers

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._site.running(self._socket):
            self._started.set()
            await self._over.wait()

    def close(self) -> None:
        """Ends all connections. May be called twice."""
        if self._thread.is_alive() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(_LEAVE_AFTER_S)
        self._socket.close()


class Serving(Closing):
    """A supervisor with its page, until it is closed.

    Attributes:
        url: Where the page is.
        supervisor: What the page shows.
    """

    def __init__(self, supervisor: Supervisor, server: PageServer) -> None:
        self.url = server.url
        self.supervisor = supervisor
        self._server = server

    def close(self) -> None:
        """Ends both. May be called twice."""
        self._server.close()
        self.supervisor.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        self.supervisor.__exit__(kind, error, trace)


def serve(
    stream: Stream,
    *,
    port: int = 8080,
    address: str = "127.0.0.1",
    names: Sequence[str] = (),
    health_file: Path | None = None,
    rules: WatchdogRules | None = None,
) -> Serving:
    """Serves the page of a stream, restarts its sources and writes its health file.

    Args:
        stream: The stream, before its first result is asked for.
        port: Where to listen; 0 for any free port.
        address: An address of this machine; others than 127.0.0.1 let other machines in.
        names: Further host names by which this machine is called.
        health_file: Where to write how it is; None for nowhere.
        rules: How long to wait for frames and results.

    Returns:
        A context manager that serves until it is left.

    Raises:
        SinkError: Nobody can listen there.
        MissingDependencyError: The extra ``serve`` is not installed.

    Example:
        >>> with segment.stream("rtsp://10.0.0.7/live") as stream:  # doctest: +SKIP
        ...     with serve(stream, port=8080) as page:
        ...         print(page.url)
        ...         for out in stream:
        ...             steer(out.mask)
    """
    supervisor = Supervisor(health_file=health_file, rules=rules)
    server = PageServer(supervisor, port=port, address=address, names=names)
    supervisor.watch(stream)
    supervisor.__enter__()
    return Serving(supervisor, server)


def _own_names() -> tuple[str, ...]:
    own = socket.gethostname()
    return ("localhost", own, f"{own}.local")


def _listening(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SinkError(
            f"cannot listen on {address} port {port}: {reason}; choose another port or an "
            "address of this machine"
        ) from error
