"""How soon streams come back: every fault is brought about with real processes and timed.

Usage: python benchmarks/faults.py [--rounds 3] [--only NAME ...] [-o FILE] [--table FILE]

Where a fault interrupts a stream, what is timed begins when its cause has ended (the server runs
again, the link is mended) and ends with the next result; where it does not, it is the longest time
between two results while the fault lasts. Sources have the patience that is their default, the
network is tiny, so that what is timed is the stream's own. Servers, links and senders are those of
the tests. A fault that cannot be brought about here is listed with the reason; one that is not
survived fails the run. Takes about five minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _fault_cases import FAULTS, OUTAGE_S, Fault
from _faulty_streams import Bench
from _record import percentiles, write_result

from cclseg.files import write_bytes


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    names = [fault.bring_about.__name__ for fault in FAULTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these faults")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    parser.add_argument("--table", type=Path, help="also write the table, as Markdown")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        cases = [
            _measured(fault, bench, arguments.rounds)
            for fault in FAULTS
            if fault.bring_about.__name__ in arguments.only
        ]
        bench.segment.close()
    table = _table(cases)
    print(table)
    if arguments.table is not None:
        write_bytes(arguments.table, table.encode())
    print(write_result("faults", {"outage_s": OUTAGE_S, "faults": cases}, arguments.out))


def _measured(fault: Fault, bench: Bench, rounds: int) -> dict[str, Any]:
    what = (fault.bring_about.__doc__ or "").rstrip(".")
    case: dict[str, Any] = {"name": fault.bring_about.__name__, "what": what}
    print(f"{case['name']} ...", file=sys.stderr, flush=True)
    samples_s: list[float] = []
    try:
        for _ in range(min(rounds, fault.rounds)):
            samples_s.append(fault.bring_about(bench))
    except pytest.skip.Exception as reason:
        return case | {"not_brought_about": str(reason)}
    return case | {"samples_s": samples_s, "seconds": percentiles(samples_s)}


def _table(cases: list[dict[str, Any]]) -> str:
    lines = ["| fault | times | median s | longest s |", "|---|---|---|---|"]
    for case in cases:
        samples_s = case.get("samples_s")
        figures = (
            f"{len(samples_s)} | {np.median(samples_s):.2f} | {max(samples_s):.2f}"
            if samples_s
            else f"0 | {case['not_brought_about']} |"
        )
        lines.append(f"| {case['what']} | {figures} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
