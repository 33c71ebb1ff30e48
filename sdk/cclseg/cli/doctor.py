"""The verb ``cclseg doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import STANDARD_OUTPUT, json_option, write_report

if TYPE_CHECKING:
    from ..doctor import Diagnosis
    from ..machine import Machine

_STYLES = {"ok": "green", "untried": "cyan", "absent": "yellow", "failed": "bold red"}


@click.command()
@click.option(
    "--health",
    "health_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help='Say instead how the "cclseg predict --health FILE" is that writes it.',
)
@click.option(
    "--max-age",
    "longest_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Age from which on the health file is stale (default: 15).",
)
@json_option
@click.pass_context
def doctor(
    ctx: click.Context, health_file: Path | None, longest_s: float | None, json_path: Path | None
) -> None:
    """Say what this machine can run, and why.

    Every backend runs the bundled model and every video writer writes a file. Exit code 1 where
    no image can be segmented here.

    With --health, exit code 0 where a running stream is well, and 1 where it is not, or where it
    has not said so lately: for watchdogs and the health checks of containers.
    """
    if health_file is not None:
        ctx.exit(_check_health(health_file, longest_s, json_path))
    from ..doctor import diagnose

    diagnosis = diagnose()
    if json_path is not None:
        write_report(diagnosis.to_dict(), json_path)
    if json_path != STANDARD_OUTPUT:
        _print_diagnosis(diagnosis)
    ctx.exit(0 if diagnosis.usable else 1)


def _check_health(path: Path, longest_s: float | None, json_path: Path | None) -> int:
    """Returns 0 where all is well by a health file."""
    from ..operation.health import judge, read_health

    content = read_health(path)
    verdict = judge(content, longest_s=longest_s)
    if json_path is not None:
        write_report(content | {"healthy": verdict.healthy, "verdict": verdict.text}, json_path)
    if json_path != STANDARD_OUTPUT:
        click.echo(verdict.text)
    return 0 if verdict.healthy else 1


def _print_diagnosis(diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(Text("machine", style="bold"))
    for name, text in _machine_rows(diagnosis.machine):
        table.add_row(f"  {name}", "", Text(text))
    for heading, findings in diagnosis.sections.items():
        table.add_row("")
        table.add_row(Text(heading, style="bold"))
        for finding in findings:
            state = Text(finding.state, style=_STYLES[finding.state])
            detail = Text(finding.detail)
            if finding.advice:
                detail.append(f"; {finding.advice}", style="dim")
            table.add_row(f"  {finding.name}", state, detail)
    console.print(table)
    style = "bold green" if diagnosis.usable else "bold red"
    console.print()
    console.print(Text(diagnosis.verdict, style=style), soft_wrap=True)


def _machine_rows(machine: Machine) -> list[tuple[str, str]]:
    rows = [
        ("processor", machine.cpu),
        ("instructions", ", ".join(machine.instruction_sets) or "none that are known"),
        ("cores", str(machine.cores)),
        ("memory", f"{_gib(machine.memory_bytes)}, {_gib(machine.memory_free_bytes)} available"),
        ("system", machine.system),
        ("python", machine.python),
    ]
    if machine.board:
        rows.append(("board", machine.board + (f", L4T {machine.l4t}" if machine.l4t else "")))
    return rows


def _gib(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:.1f} GiB"
