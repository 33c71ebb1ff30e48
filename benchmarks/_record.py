"""What every benchmark records beside its samples: device, load, versions, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from cclseg.files import make_folder, write_json
from cclseg.machine import read_machine

_PACKAGES = ("cclseg", "numpy", "opencv-python-headless", "onnxruntime", "openvino")


def write_result(name: str, content: dict[str, Any], out: Path | None) -> Path:
    """Writes a result with what it was measured on.

    Args:
        name: Stem of the file where ``out`` is not given.
        content: Settings and raw samples.
        out: Target; None for ``results/<device>/<name>.json`` beside this file.

    Returns:
        The target.
    """
    machine = read_machine()
    if out is None:
        device = re.sub(r"[^a-z0-9]+", "-", machine.cpu.lower()).strip("-")
        out = make_folder(Path(__file__).parent / "results" / device) / f"{name}.json"
    surroundings = {
        "device": asdict(machine),
        "load_average": os.getloadavg(),
        "versions": {"python": platform.python_version()} | _versions(),
        "commit": _commit(),
        "command": [Path(sys.argv[0]).name, *map(_without_folder, sys.argv[1:])],
    }
    write_json(out, surroundings | content)
    return out


def _without_folder(word: str) -> str:
    """Leaves out where a file lies on the machine that measured."""
    return Path(word).name if Path(word).is_absolute() else word


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """Returns n, mean, p50, p90, p95 and p99 of samples."""
    values = np.percentile(samples, (50, 90, 95, 99))
    named = {f"p{p}": float(v) for p, v in zip((50, 90, 95, 99), values, strict=True)}
    return {"n": len(samples), "mean": float(np.mean(samples)), **named}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
