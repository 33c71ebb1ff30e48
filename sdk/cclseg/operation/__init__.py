"""Operation: how a stream that runs for days is watched, restarted and shown.

    stream ─► Monitor ─► Health ─► health file, service manager, /healthz, /metrics, page
                 └─► Watchdog ─► source

A :class:`~cclseg.operation.supervisor.Supervisor` looks once a second, in a thread of its own; all
who want to know read what it saw, so none of them costs the stream anything.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .health import Health, read_health
    from .server import serve
    from .supervisor import Supervisor
    from .watchdog import WatchdogRules

__all__ = ["Health", "Supervisor", "WatchdogRules", "read_health", "serve"]

_HOMES = {
    "Health": "health",
    "Supervisor": "supervisor",
    "WatchdogRules": "watchdog",
    "read_health": "health",
    "serve": "server",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class or function
    """Imports a public name when it is first used: the server alone needs a library."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cclseg.operation' has no attribute '{name}'")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
