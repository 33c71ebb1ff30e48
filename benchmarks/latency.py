"""Latency of one tile per model, precision and backend.

Usage: python benchmarks/latency.py [MODEL.onnx ...] [--threads 2] [--samples 200] [-o FILE]

Without models the bundled ones are measured; give an fp32 and an int8 file of one model to see the
gain. Cases take turns in blocks, so that other load on the machine meets all of them alike. "alone"
is one tile in one call, "of eight" a tile's share of a call with eight. A case that fails fails the
run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from _record import percentiles, write_result
from _tile_latency import Case, measured_in_turns

from cclseg.models import bundled_models


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=200, help="calls per case and stage")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    models = arguments.models or list(bundled_models().values())
    if not models:
        sys.exit("no bundled models in this checkout; give model files")
    cases = measured_in_turns(models, threads=arguments.threads, samples=arguments.samples)
    records = [case.record(arguments.threads) for case in cases]
    target = write_result(
        "latency", {"threads": arguments.threads, "cases": records}, arguments.out
    )
    _print(cases)
    print(target)


def _print(cases: list[Case]) -> None:
    medians = {case.label: {s: np.median(v) for s, v in case.samples_ms.items()} for case in cases}
    for case in cases:
        for stage, values in case.samples_ms.items():
            figures = percentiles(values)
            text = "  ".join(f"{key} {figures[key]:7.2f}" for key in ("p50", "p90", "p99"))
            print(f"{case.label:36} {stage:9} n {figures['n']:4}  {text}  ms")
    for label, stages in medians.items():
        other = medians.get(label.replace(" int8 ", " fp32 "))
        if " int8 " in label and other is not None:
            gains = ", ".join(f"{stage} {other[stage] / stages[stage]:.2f}x" for stage in stages)
            print(f"{label}: faster than fp32 {gains}")


if __name__ == "__main__":
    main()
