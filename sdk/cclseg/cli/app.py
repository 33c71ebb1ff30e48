"""The click group: finds verbs, sets up the log, and turns every outcome into an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. A verb's module is imported when the
verb is run or listed, and imports heavy libraries only inside its function.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

import click

from .. import __version__
from ..errors import CclsegError, MissingDependencyError
from ..operation.log_lines import JsonFormatter
from ..suggest import did_you_mean

COMMANDS_GROUP = "cclseg.commands"
"""Entry-point group in which other packages offer verbs: ``name = "module:click_command"``."""

RUNTIME_VERBS = ("demo", "predict", "match", "val", "ops", "inspect", "sign", "doctor")
VERB_ORDER = (
    "demo",
    "predict",
    "match",
    "pretrain",
    "train",
    "val",
    "cross-validate",
    "export",
    "build",
    "ops",
    "inspect",
    "sign",
    "verify",
    "doctor",
)

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

_log = logging.getLogger(__name__)

_LOG_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_OWN_PACKAGES = ("cclseg", "cclseg_trainer", "cclseg_export")


@dataclass(slots=True)
class Settings:
    """What was asked for before the verb's name; ``click.Context.obj`` of every verb.

    Attributes:
        debug: Show the traceback of an error.
        log_json: The standard error takes lines of JSON alone.
    """

    debug: bool = False
    log_json: bool = False

    def tell(self, line: str, *, level: int = logging.INFO, **fields: object) -> None:
        """Writes a line for people to the standard error, or logs it where that takes JSON."""
        if self.log_json:
            _log.log(level, "%s", line, extra=fields)
        else:
            click.echo(line, err=True)


class VerbGroup(click.Group):
    """A group whose commands are modules of this package and plug-ins of others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names all verbs, those of the contract first and in its order."""
        rank = {name: index for index, name in enumerate(VERB_ORDER)}
        return sorted(find_verbs(), key=lambda name: (rank.get(name, len(rank)), name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads one verb; one that cannot be loaded stays listed and says why."""
        verb = find_verbs().get(cmd_name)
        if verb is None:
            return None
        try:
            command = verb.load()
        except (ImportError, AttributeError) as error:
            return _unavailable(verb, error)
        assert isinstance(command, click.Command), f"{verb.value} is not a click command"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the verb that was typed, or suggests the one that was meant."""
        typed = args[0]
        if typed not in find_verbs() and not typed.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"there is no verb '{typed}'; {did_you_mean(typed, find_verbs())}")
        return super().resolve_command(ctx, args)


@lru_cache(maxsize=1)
def find_verbs() -> dict[str, EntryPoint]:
    """Returns every verb by name: those of the runtime, and those that installed packages offer."""
    plug_ins = {verb.name: verb for verb in entry_points(group=COMMANDS_GROUP)}
    own = {
        name: EntryPoint(name, f"{__package__}.{name}:{name}", COMMANDS_GROUP)
        for name in RUNTIME_VERBS
    }
    return plug_ins | own


@click.group(
    cls=VerbGroup,
    subcommand_metavar="VERB ...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="cclseg", message="%(prog)s %(version)s")
@click.option("-v", "--verbose", count=True, help="Say what is done; twice: every stage.")
@click.option("--log-json", is_flag=True, help="Log as lines of JSON, for what collects logs.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_obj
def app(settings: Settings, verbose: int, log_json: bool, debug: bool) -> None:
    """Segment UAV and satellite images on small computers.

    Run "cclseg VERB --help" for the options of a verb; start with "cclseg demo".
    """
    settings.debug, settings.log_json = debug, log_json
    _set_up_log(_LOG_LEVELS[min(verbose, len(_LOG_LEVELS) - 1)], as_json=log_json)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; every error ends here as one clear line.

    Args:
        arguments: What stands behind the program's name.
    """
    settings = Settings()
    try:
        outcome = app.main(list(arguments), prog_name="cclseg", standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except click.ClickException as error:
        if settings.log_json:
            return _say(settings, error.format_message(), error.exit_code)
        error.show()
        return error.exit_code
    except click.Abort:
        return _say(settings, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:
        if settings.debug and not settings.log_json:
            traceback.print_exc()
        trace = {"trace": traceback.format_exc()} if settings.debug else {}
        prefix = "" if settings.log_json else "error: "
        return _say(settings, f"{prefix}{_explained(error, arguments)}", FAILED, **trace)
    return outcome if isinstance(outcome, int) else DONE


def _say(settings: Settings, line: str, exit_code: int, **fields: object) -> int:
    settings.tell(line, level=logging.ERROR, exit_code=exit_code, **fields)
    return exit_code


def _explained(error: Exception, arguments: Sequence[str]) -> str:
    """Says in one line what went wrong; an error that is ours asks for a report."""
    if isinstance(error, CclsegError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and not _is_own(error.name or ""):
        # The trainer and the exporter are made of their libraries and import them outright.
        return f"the library '{error.name}' is not installed; run: pip install \"cclseg[all]\""
    command = shlex.join(["cclseg", "--debug", *(a for a in arguments if a != "--debug")])
    text = " ".join(str(error).split())
    return (
        f"a bug in cclseg {__version__}: {type(error).__name__}: {text}; "
        f"please report it with the output of: {command}"
    )


def _is_own(module: str) -> bool:
    return module.partition(".")[0] in _OWN_PACKAGES


def _reader_left() -> int:
    """Ends quietly when the program that read our output is gone (``cclseg ... | head``)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _unavailable(verb: EntryPoint, error: Exception) -> click.Command:
    """Stands in for a verb whose module cannot be imported."""
    reason = f"the verb '{verb.name}' ({verb.value}) cannot be loaded: {error}"

    def refuse(words: tuple[str, ...]) -> None:
        raise MissingDependencyError(f"{reason}; reinstall the package that brings it") from error

    return click.Command(
        verb.name,
        callback=refuse,
        params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        help=f"Not available: {reason}.",
    )


class _StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at the moment, so lines appear above a live progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")


class _TextFormatter(logging.Formatter):
    """Writes a record as one line for people."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


def _set_up_log(level: int, *, as_json: bool) -> None:
    """Sends warnings of every library, and our own messages from ``level`` on, to stderr."""
    handler = _StderrHandler()
    handler.setFormatter(JsonFormatter() if as_json else _TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(as_json)
    for package in _OWN_PACKAGES:
        logging.getLogger(package).setLevel(level)
