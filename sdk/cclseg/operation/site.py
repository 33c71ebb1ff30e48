"""What the page's server answers, and to whom.

===================  ====================================================
path                 gives
===================  ====================================================
``/``                a page with the picture, figures and events
``/stream.mjpg``     the pictures alone (``?stream=NAME`` where there are several)
``/healthz``         JSON, with status 200 where all is well, else 503
``/metrics``         the same for Prometheus
===================  ====================================================
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from ..errors import MissingDependencyError
from ..suggest import did_you_mean
from .connections import Connections
from .metrics_text import CONTENT_TYPE, Metrics
from .pictures import Pictures

try:
    from aiohttp import web
    from aiohttp.http_exceptions import HttpProcessingError
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "aiohttp", extra="serve", purpose="the page of a stream"
    ) from error

if TYPE_CHECKING:
    from .supervisor import Supervisor

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "cclseg",
}
_BOUNDARY = "cclseg-picture"
# Also ends the part before it: browsers show a picture when the head of the next one has come, so
# that is sent at once, without a length, which is not known by then.
_PART_START = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[\w.-]+))(?::\d+)?", re.ASCII)

# A phone on a slow link shall see what is, not what the system has stored up for it.
_SEND_BUFFER_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may ask for.

    Attributes:
        connections: Open at a time; further ones are closed at once.
        watchers: Connections that see pictures; further ones get status 503.
        header_bytes: Length of a line of a request.
        request_s: Time for the first request of a connection to arrive.
        idle_s: Time until the next one has.
        picture_s: Time for a picture to be taken. Where there is no other for this time, the same
            is sent again.
    """

    connections: int = 64
    watchers: int = 8
    header_bytes: int = 8190
    request_s: float = 10.0
    idle_s: float = 20.0
    picture_s: float = 10.0


class Site:
    """The paths of the server.

    Args:
        supervisor: Whom to ask.
        names: Host names under which it may be asked, beside addresses.
        limits: What clients may ask for.

    Attributes:
        watchers: How many see pictures now.
    """

    def __init__(self, supervisor: Supervisor, names: Sequence[str], limits: Limits) -> None:
        self._supervisor = supervisor
        self._names = frozenset(name.lower() for name in names)
        self._limits = limits
        self._metrics = Metrics(lambda: supervisor.health)
        self._drawing = ThreadPoolExecutor(1, thread_name_prefix="cclseg-picture")
        self._pictures: dict[str, Pictures] = {}
        self.watchers = 0
        self._connections = Connections(limits.connections, limits.request_s)

    @asynccontextmanager
    async def running(self, listening: socket.socket) -> AsyncIterator[None]:
        """Answers those who connect to a socket."""
        limits = self._limits
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            logger=_quiet_logger(),
            handler_cancellation=True,
            shutdown_timeout=1.0,
            keepalive_timeout=limits.idle_s,
            lingering_time=1.0,
            max_line_size=limits.header_bytes,
            max_field_size=limits.header_bytes,
        )
        await runner.setup()
        connections = self._connections

        def accept() -> asyncio.BaseProtocol:
            assert runner.server is not None
            return connections.admit(runner.server)

        try:
            async with await asyncio.get_running_loop().create_server(accept, sock=listening):
                yield
        finally:
            await runner.cleanup()
            self._drawing.shutdown()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        application.on_response_prepare.append(_add_headers)
        page = files(__package__) / "page"
        for path, (name, kind) in _PAGE.items():
            application.router.add_get(path, _asset((page / name).read_bytes(), kind))
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/metrics", self._metrics_text)
        application.router.add_get("/stream.mjpg", self._stream, allow_head=False)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        self._connections.heard(request.protocol)
        if not self._is_ours(request.headers.get("Host")):
            # Else a stranger's page could read ours, under a name of its own that leads here.
            raise web.HTTPMisdirectedRequest(
                text="this name is not known here; use the address, or start with "
                "--serve-name NAME\n"
            )
        return await handler(request)

    def _is_ours(self, host: str | None) -> bool:
        if host is None:  # an old client, not a browser
            return True
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        if match["v6"]:
            return True
        name = match["name"].lower().rstrip(".")
        return name in self._names or _is_address(name)

    async def _healthz(self, request: web.Request) -> web.StreamResponse:
        health = self._supervisor.health
        body = json.dumps(health.to_dict(), ensure_ascii=False)
        return web.Response(
            text=body, content_type="application/json", status=200 if health.healthy else 503
        )

    async def _metrics_text(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self.watchers >= self._limits.watchers:
            raise web.HTTPServiceUnavailable(
                text=f"{self.watchers} watch already; try again later\n",
                headers={"Retry-After": "10"},
            )
        pictures = self._pictures_of(request.query.get("stream"))
        response = web.StreamResponse()
        response.content_type = "multipart/x-mixed-replace"
        response.headers["Content-Type"] += f"; boundary={_BOUNDARY}"
        self.watchers += 1
        try:
            with pictures.watched():
                await response.prepare(request)
                await self._send_pictures(request, response, pictures)
        finally:
            self.watchers -= 1
        return response

    def _pictures_of(self, name: str | None) -> Pictures:
        names = self._supervisor.names or ("",)
        name = names[0] if name is None else name
        if name not in names:
            raise web.HTTPNotFound(text=f"no stream '{name}'; {did_you_mean(name, names)}\n")
        if name not in self._pictures:
            self._pictures[name] = Pictures(lambda: self._supervisor.newest(name), self._drawing)
        return self._pictures[name]

    async def _send_pictures(
        self, request: web.Request, response: web.StreamResponse, pictures: Pictures
    ) -> None:
        """Sends the newest picture whenever the client has taken the one before."""
        assert request.transport is not None
        channel = request.transport.get_extra_info("socket")
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        longest_s, number = self._limits.picture_s, 0
        await response.write(_PART_START)
        while True:
            number, jpeg = await pictures.next(number, longest_s=longest_s)
            if not jpeg:
                continue
            try:
                await asyncio.wait_for(response.write(jpeg + b"\r\n" + _PART_START), longest_s)
            except (asyncio.TimeoutError, ConnectionError):
                request.transport.abort()
                return


def _asset(content: bytes, kind: str) -> _Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=content, content_type=kind, charset="utf-8")

    return answer


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _quiet_logger() -> logging.Logger:
    """Returns a logger that leaves out what clients do wrong, which is theirs to know."""
    logger = logging.getLogger(f"{__name__}.requests")
    if not logger.filters:
        logger.addFilter(_is_our_error)
    return logger


def _is_our_error(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, (HttpProcessingError, ConnectionError))
