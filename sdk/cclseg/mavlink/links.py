"""Ways on which bytes come from an aircraft. Nothing is ever sent on any of them."""

from __future__ import annotations

import errno
import os
import select
import socket
import termios
import tty
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from ..errors import SourceError

_LARGEST_READ = 65_536
_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class Received:
    """Some bytes.

    Attributes:
        sender: Tells the senders of one link apart, whose bytes must not be mixed.
        data: At least one byte.
    """

    sender: Hashable
    data: bytes


class Link(Protocol):
    """An open connection."""

    def receive(self, timeout_s: float) -> Received | None:
        """Waits for bytes; None where none come in time.

        Raises:
            SourceError: The connection is lost.
        """

    def close(self) -> None:
        """Frees the connection. May be called twice."""


class UdpLink:
    """Datagrams that are sent to a port of this machine."""

    def __init__(self, host: str, port: int) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host or "0.0.0.0", port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
            )[0]
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            raise SourceError(f"udp://{host}:{port}: {error.strerror}; check the host") from error
        try:
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise SourceError(
                f"cannot listen at udp://{host}:{port}: {error.strerror}; another program may "
                "have the port: let a router (mavlink-router, MAVProxy --out) send to both"
            ) from error
        self.port = int(self._socket.getsockname()[1])

    def receive(self, timeout_s: float) -> Received | None:
        """Waits for a datagram; see :meth:`Link.receive`."""
        if not _readable(self._socket.fileno(), timeout_s):
            return None
        try:
            data, sender = self._socket.recvfrom(_LARGEST_READ)
        except OSError as error:
            raise SourceError(f"the network is gone: {error.strerror}") from error
        return Received(sender, data) if data else None

    def close(self) -> None:
        """Frees the port. May be called twice."""
        self._socket.close()


class TcpLink:
    """A connection to a server, such as an autopilot's simulator or a radio's bridge."""

    def __init__(self, host: str, port: int) -> None:
        try:
            self._socket = socket.create_connection((host, port), timeout=_CONNECT_S)
        except OSError as error:
            reason = error.strerror or str(error)
            raise SourceError(f"cannot connect to tcp://{host}:{port}: {reason}") from error

    def receive(self, timeout_s: float) -> Received | None:
        """Waits for bytes; see :meth:`Link.receive`."""
        if not _readable(self._socket.fileno(), timeout_s):
            return None
        try:
            data = self._socket.recv(_LARGEST_READ)
        except OSError as error:
            raise SourceError(f"the connection broke: {error.strerror}") from error
        if not data:
            raise SourceError("the other side has closed the connection")
        return Received(None, data)

    def close(self) -> None:
        """Ends the connection. May be called twice."""
        self._socket.close()


class SerialLink:
    """A serial port, opened for reading only."""

    def __init__(self, device: str, baud: int) -> None:
        speed = getattr(termios, f"B{baud}", None)
        if speed is None:
            raise SourceError(f"serial:{device}: no serial port runs at {baud} baud; try 57600")
        try:
            self._descriptor = os.open(device, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(
                f"cannot open serial:{device}: {error.strerror}; check the cable and that this "
                "user may read the port (group dialout)"
            ) from error
        try:
            tty.setraw(self._descriptor)
            settings = termios.tcgetattr(self._descriptor)
            settings[4] = settings[5] = speed
            termios.tcsetattr(self._descriptor, termios.TCSANOW, settings)
        except termios.error as error:
            self.close()
            raise SourceError(f"{device} is no serial port: {error.args[-1]}") from error

    def receive(self, timeout_s: float) -> Received | None:
        """Waits for bytes; see :meth:`Link.receive`."""
        if not _readable(self._descriptor, timeout_s):
            return None
        try:
            data = os.read(self._descriptor, _LARGEST_READ)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return None
            raise SourceError(f"the serial port is gone: {error.strerror}") from error
        if not data:
            raise SourceError("the serial port has closed")
        return Received(None, data)

    def close(self) -> None:
        """Frees the port. May be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _readable(descriptor: int, timeout_s: float) -> bool:
    """Waits for bytes or an end; poll, because select refuses descriptors from 1024 on."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))
