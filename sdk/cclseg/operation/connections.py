"""Who may stay connected to the server: not too many, and nobody who asks for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


class Connections:
    """Counts the connections of a server and ends those that are silent.

    Args:
        most: Open at a time.
        request_s: Time for the first request of each to arrive.
    """

    def __init__(self, most: int, request_s: float) -> None:
        self._most = most
        self._request_s = request_s
        self._open: dict[asyncio.BaseProtocol, _Connection] = {}

    def admit(self, make: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        """Returns what speaks to a new client: what ``make`` gives, or a refusal."""
        if len(self._open) >= self._most:
            return _Refusal()
        speaker = make()
        connection = _Connection(speaker, self._request_s, self._open.pop)
        self._open[speaker] = connection
        return connection

    def heard(self, speaker: asyncio.BaseProtocol) -> None:
        """Notes that a client has sent a whole request."""
        connection = self._open.get(speaker)
        if connection is not None:
            connection.cancel_cut()


class _Connection(asyncio.Protocol):
    """Passes everything on to what speaks to the client, and sees the beginning and the end."""

    def __init__(
        self,
        speaker: asyncio.Protocol,
        request_s: float,
        lost: Callable[[asyncio.Protocol], object],
    ) -> None:
        self._speaker = speaker
        self._request_s = request_s
        self._lost = lost
        self._cut: asyncio.TimerHandle | None = None

    def cancel_cut(self) -> None:
        if self._cut is not None:
            self._cut.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        loop = asyncio.get_running_loop()
        self._cut = loop.call_later(self._request_s, transport.abort)
        self._speaker.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.cancel_cut()
        self._lost(self._speaker)
        self._speaker.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._speaker.data_received(data)

    def eof_received(self) -> bool | None:
        return self._speaker.eof_received()

    def pause_writing(self) -> None:
        self._speaker.pause_writing()

    def resume_writing(self) -> None:
        self._speaker.resume_writing()


class _Refusal(asyncio.Protocol):
    """Turns a client away that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(_REFUSAL)
        transport.close()
