"""How long a fresh process takes to its first mask: import, load, first frame.

Usage: python benchmarks/start.py [-m MODEL] [--threads 2] [--processes 10] [-o FILE]

Every sample is a process of its own, with the files in the system's cache. "import" is what
``import cclseg`` takes after numpy; "load" opens the model, the import of its library included;
"first" segments a photo of the network's own size. "kept" is with a folder that $CCLSEG_CACHE
names and that an earlier process has filled.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _record import percentiles, write_result

from cclseg.compiled_cache import CACHE_VARIABLE

_PROGRAM = """
import json, sys, time
import numpy as np
marks = [time.perf_counter()]
def mark():
    marks.append(time.perf_counter())
import cclseg
mark()
segmenter = cclseg.Segmenter(sys.argv[1], backend=sys.argv[2], threads=int(sys.argv[3]))
mark()
height, width = segmenter.spec.input_hw
segmenter(np.zeros((height, width, len(segmenter.spec.bands)), np.uint8))
mark()
names = ("import", "load", "first")
print(json.dumps({n: 1e3 * (b - a) for n, a, b in zip(names, marks, marks[1:])}))
"""


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="ccl-lite0")
    parser.add_argument("--backend", nargs="+", default=["openvino", "onnxruntime", "auto"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=10, help="per backend")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    samples: dict[tuple[str, bool], list[dict[str, float]]] = {
        (name, kept): [] for name in arguments.backend for kept in (False, True)
    }
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.processes + 1):
            for (name, kept), found in samples.items():
                command = [arguments.model, name, str(arguments.threads)]
                times_ms = _one_process(command, folder if kept else "")
                if number:  # the first round brings the files into memory and fills the folder
                    found.append(times_ms)
    cases = []
    for (name, kept), found in samples.items():
        stages = {stage: [one[stage] for one in found] for stage in found[0]}
        stages["load + first"] = [one["load"] + one["first"] for one in found]
        figures = {stage: percentiles(values) for stage, values in stages.items()}
        text = ", ".join(f"{stage} {figure['p50']:.0f} ms" for stage, figure in figures.items())
        print(f"{name:12} {'kept' if kept else '':4} {text}")
        cases.append({"backend": name, "kept": kept, "samples_ms": stages, "ms": figures})
    content = {"model": arguments.model, "threads": arguments.threads, "cases": cases}
    print(write_result("start", content, arguments.out))


def _one_process(arguments: list[str], cache: str) -> dict[str, float]:
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    environment = os.environ | {CACHE_VARIABLE: cache}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    times_ms: dict[str, float] = json.loads(done.stdout)
    return times_ms


if __name__ == "__main__":
    main()
