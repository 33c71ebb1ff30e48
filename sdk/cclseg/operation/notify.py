"""Words to the service manager: a few lines of text over a socket, as systemd's sd_notify(3) says.

Outside a service, where no manager asked for it, nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

_log = logging.getLogger(__name__)


class ServiceManager:
    """The manager that started this process, if one did and wants to be told.

    Args:
        environment: Where the manager left its address.

    Attributes:
        watches: It ends this process when it hears no :meth:`still_alive` for too long.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = environment.get("NOTIFY_SOCKET", "")
        asked_pid = environment.get("WATCHDOG_PID")
        self.watches = "WATCHDOG_USEC" in environment and asked_pid in (None, str(os.getpid()))
        self._status = ""
        self._told_stopping = False

    def ready(self) -> None:
        """Tells it that the start is over."""
        self._send("READY=1")

    def still_alive(self) -> None:
        """Tells a manager that watches that all is well."""
        if self.watches:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Tells it once that the end has begun."""
        if not self._told_stopping:
            self._told_stopping = True
            self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Tells it a line for people, where it has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={' '.join(text.split())}")

    def _send(self, line: str) -> None:
        if not self._address:
            return
        # An address that begins with @ stands for one outside the file system.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(1.0)
                channel.sendto(line.encode(), address)
        except OSError as error:  # work goes on; a manager that hears nothing acts by itself
            _log.warning("cannot tell the service manager %s: %s", line.partition("=")[0], error)
