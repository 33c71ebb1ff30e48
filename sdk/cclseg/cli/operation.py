"""Options of verbs that may run for days, and what they bring about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from ..operation.health import About
from ..operation.supervisor import Supervisor
from ..operation.watchdog import WatchdogRules
from .options import writable

if TYPE_CHECKING:
    from ..segmenter import Segmenter

_Verb = TypeVar("_Verb", bound=Callable[..., object])

_LOCAL = "127.0.0.1"
_PATIENCE_S = WatchdogRules().patience_s
_KEY = f"{__name__}.asked"


@dataclass(slots=True)
class _Asked:
    """What the options ask for; ``serve`` is an address and a port."""

    health: Path | None = None
    serve: tuple[str, int] | None = None
    serve_name: tuple[str, ...] = ()
    watchdog: float = _PATIENCE_S


def _asked(ctx: click.Context) -> _Asked:
    asked = ctx.meta.setdefault(_KEY, _Asked())
    assert isinstance(asked, _Asked)
    return asked


def _keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
    """Puts an option aside for :func:`supervised`, so that no verb has to hand it on."""
    assert param.name is not None
    setattr(_asked(ctx), param.name, value)


def _keep_place(ctx: click.Context, param: click.Parameter, text: str | None) -> None:
    """Reads ``[ADDRESS:]PORT``."""
    if text is None:
        return
    match = re.fullmatch(r"(?:\[([^\]]+)\]:|([^:]+):)?(\d{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise click.BadParameter(
            f"'{text}' is no place to listen; expected PORT, 0.0.0.0:PORT or [::]:PORT"
        )
    _keep(ctx, param, (match[1] or match[2] or _LOCAL, int(match[3])))


def operation_options(verb: _Verb) -> _Verb:
    """Adds the options; the verb takes what they ask for with :func:`supervised`."""
    options = (
        click.option(
            "--health",
            type=click.Path(path_type=Path, dir_okay=False),
            callback=lambda ctx, param, path: _keep(ctx, param, writable(ctx, param, path)),
            expose_value=False,
            metavar="FILE",
            help='Write once a second how it is; "cclseg doctor --health FILE" reads it.',
        ),
        click.option(
            "--serve",
            callback=_keep_place,
            expose_value=False,
            metavar="[ADDRESS:]PORT",
            help=f"Show a live page, health and metrics over HTTP (address: {_LOCAL}).",
        ),
        click.option(
            "--serve-name",
            multiple=True,
            callback=_keep,
            expose_value=False,
            metavar="NAME",
            help="Another name of this machine under which the page may be asked for.",
        ),
        click.option(
            "--watchdog",
            type=click.FloatRange(min=1),
            default=_PATIENCE_S,
            show_default=True,
            callback=_keep,
            expose_value=False,
            metavar="SECONDS",
            help="Restart a camera or stream that owes a frame for this time.",
        ),
    )
    for option in reversed(options):
        verb = option(verb)
    return verb


def is_served(ctx: click.Context) -> bool:
    """Says whether there is a page to show the results."""
    return _asked(ctx).serve is not None


@contextmanager
def supervised(ctx: click.Context) -> Iterator[Supervisor]:
    """Yields what watches over a stream, as the options ask for it.

    Raises:
        SinkError: Nobody can listen at the address.
        MissingDependencyError: A page is asked for and the extra ``serve`` is not installed.
    """
    asked = _asked(ctx)
    rules = WatchdogRules(patience_s=asked.watchdog)
    with ExitStack() as stack:
        supervisor = stack.enter_context(Supervisor(health_file=asked.health, rules=rules))
        if asked.serve is not None:
            from ..operation.server import PageServer

            address, port = asked.serve
            server = stack.enter_context(
                PageServer(supervisor, port=port, address=address, names=asked.serve_name)
            )
            ctx.obj.tell(f"page: {server.url}")
        yield supervisor


def about(source: str, segmenter: Segmenter) -> About:
    """Returns what a stream runs."""
    spec = segmenter.spec
    return About(source, spec.name, segmenter.backend, spec.precision, segmenter.device)
