"""The command line: ``cclseg VERB``."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the program ``cclseg`` on the arguments of this process and returns its exit code."""
    try:
        import click  # noqa: F401 - asked for here so that its absence has one clear answer
    except ModuleNotFoundError:
        from ..errors import MissingDependencyError

        advice = MissingDependencyError.for_extra("click", extra="cpu", purpose="the command line")
        sys.stderr.write(f"error: {advice}\n")
        return 1
    from .app import run

    return run(sys.argv[1:])
