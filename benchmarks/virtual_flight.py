"""How fast a virtual flight renders on one core: scenes, frames and training crops.

Usage: python benchmarks/virtual_flight.py [--samples 200] [-o results/<device>/virtual_flight.json]

Writes raw samples in milliseconds. A scene is rendered once per flight, so the frames an hour
count it in for a flight of 1000 frames.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import cclseg
from cclseg.files import make_folder, write_json
from cclseg.machine import read_machine
from cclseg.virtual import CropSampler, VirtualFlight, build_world

_FRAME_SIZES_HW = ((512, 512), (720, 1280))
_SCENES = 5
_WARM_UP = 10
_FLIGHT_FRAMES = 1000


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=200, help="frames and crops per case")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    samples_ms: dict[str, list[float]] = {}
    frames_per_hour: dict[str, float] = {}
    for frame_hw in _FRAME_SIZES_HW:
        size = f"{frame_hw[1]}x{frame_hw[0]}"
        scene_ms, frame_ms = _measure_flight(frame_hw, arguments.samples)
        samples_ms |= {f"scene {size}": scene_ms, f"frame {size}": frame_ms}
        flight_ms = float(np.mean(scene_ms)) + _FLIGHT_FRAMES * float(np.mean(frame_ms))
        frames_per_hour[size] = 3.6e6 * _FLIGHT_FRAMES / flight_ms
    samples_ms["crop 384x384"] = _measure_crops(arguments.samples)
    machine = read_machine()
    target = arguments.out or _default_target(machine.cpu)
    write_json(
        target,
        {
            "device": asdict(machine),
            "load_average": os.getloadavg(),
            "threads": 1,
            "samples_ms": samples_ms,
            "latency_ms": {name: _summary(values) for name, values in samples_ms.items()},
            "frames_per_hour": frames_per_hour,
            "versions": {
                "cclseg": cclseg.__version__,
                "numpy": np.__version__,
                "opencv": cv2.__version__,
                "python": platform.python_version(),
            },
            "commit": _commit(),
        },
    )
    for name, values in samples_ms.items():
        figures = "  ".join(f"{key} {value:8.1f}" for key, value in _summary(values).items())
        print(f"{name:18} n {len(values):4}  {figures}  ms")
    for size, rate in frames_per_hour.items():
        print(f"{size:18} {rate:,.0f} frames an hour in flights of {_FLIGHT_FRAMES}")
    print(target)


def _measure_flight(frame_hw: tuple[int, int], samples: int) -> tuple[list[float], list[float]]:
    """Milliseconds per scene and per frame."""
    flight = VirtualFlight(1, frames=samples + _WARM_UP, frame_hw=frame_hw)
    world = flight.world
    scenes = [
        _timed_ms(lambda seed=seed: build_world(seed, size_px=world.size_px, gsd_m=world.gsd_m))
        for seed in range(_SCENES)
    ]
    frames = [_timed_ms(lambda index=index: flight.frame(index)) for index in range(flight.frames)]
    return scenes, frames[_WARM_UP:]


def _measure_crops(samples: int) -> list[float]:
    sampler, rng = CropSampler(worlds=2), np.random.default_rng(0)
    times = [_timed_ms(lambda: sampler.sample(rng, (384, 384))) for _ in range(samples + _WARM_UP)]
    return times[_WARM_UP:]


def _timed_ms(work: Callable[[], Any]) -> float:
    start_ns = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start_ns) / 1e6


def _summary(values: list[float]) -> dict[str, float]:
    p50, p95, p99 = (float(v) for v in np.percentile(values, (50, 95, 99)))
    return {"mean": float(np.mean(values)), "p50": p50, "p95": p95, "p99": p99}


def _default_target(cpu: str) -> Path:
    device = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    return make_folder(Path(__file__).parent / "results" / device) / "virtual_flight.json"


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


if __name__ == "__main__":
    main()
