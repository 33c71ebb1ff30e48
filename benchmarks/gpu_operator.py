"""The TensorRT plugin's own enqueue: checked against the definition, timed against its floor.

Usage: python benchmarks/gpu_operator.py [--cases 60] [--samples 300] [-o FILE]
       python benchmarks/gpu_operator.py --emulate

Compiles the plugin for this machine's GPU and a small C++ program that calls it as TensorRT does,
without TensorRT. Random problems of every type and option must match the definition, or the run
fails. Then a time stands beside two others of the same run: the floor, which is reading both maps
and writing the result once at the rate of a plain copy, and the kernels of localcorr where that
and torch are installed. With --emulate the kernels run on the CPU, and nothing is timed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _record import percentiles, write_result
from numpy.typing import NDArray

from cclseg.correlation import local_correlation
from cclseg.files import make_folder
from cclseg.native_build_tensorrt import build_tensorrt, find_nvcc

_TESTS = Path(__file__).parent.parent / "tests" / "support"
sys.path.insert(0, str(_TESTS))
import tensorrt_plugin  # noqa: E402 - the program that drives the plugin belongs to the tests

Maps = NDArray[Any]

_SCALES = (0.031, 0.007)  # of int8 maps
# The last step rounds to 24 bits, to 11 bits, and to 24 bits of an exact sum.
_TOLERANCES = {
    "float32": {"rtol": 1e-5, "atol": 4e-6},
    "float16": {"rtol": 2**-10, "atol": 4e-6},
    "int8": {"rtol": 4e-6, "atol": 1e-9},
}
_TIMED = (  # shape, radius: two maps of a network at the edge, and two that fill a large GPU
    ((1, 64, 64, 64), 4),
    ((1, 32, 128, 128), 3),
    ((8, 64, 256, 256), 4),
    ((8, 64, 256, 256), 2),
)
_COPY_BYTES = 1 << 30


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=60, help="random problems of each type")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--emulate", action="store_true", help="check on the CPU, time nothing")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        driver = _emulated(Path(name)) if arguments.emulate else _compiled(Path(name))
        errors = {dtype: _largest_error(driver, dtype, arguments.cases) for dtype in _TOLERANCES}
        print(f"{arguments.cases} problems of each type match the definition: {errors}")
        if arguments.emulate:
            return
        gpu = " ".join(_lines(driver.program, "device"))
        timed = _timed(driver, arguments.samples)
    out = arguments.out
    if out is None:
        device = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
        out = make_folder(Path(__file__).parent / "results" / device) / "gpu_operator.json"
    content = {"gpu": gpu, "cases": arguments.cases, "largest_errors": errors, **timed}
    print(write_result("gpu_operator", content, out))


def _emulated(folder: Path) -> tensorrt_plugin.Driver:
    program = tensorrt_plugin.build_driver(folder)
    return tensorrt_plugin.Driver(program, tensorrt_plugin.build_emulated(folder), folder)


def _compiled(folder: Path) -> tensorrt_plugin.Driver:
    program = folder / "gpu_driver"
    subprocess.run(
        [find_nvcc(), "-x", "cu", "-std=c++17", "-O2", f"-I{tensorrt_plugin.NATIVE / 'tensorrt'}",
         _TESTS / "plugin_driver.cpp", "-o", program, "-ldl"],
        check=True,
    )  # fmt: skip
    return tensorrt_plugin.Driver(program, build_tensorrt(folder), folder)


def _lines(program: Path, *arguments: object) -> list[str]:
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")


def _largest_error(driver: tensorrt_plugin.Driver, dtype: str, cases: int) -> float:
    """Checks random problems; returns the largest absolute difference from the definition."""
    rng = np.random.default_rng(0)
    largest = 0.0
    for _ in range(cases):
        groups, depth = int(rng.integers(1, 5)), int(rng.integers(1, 17))
        shape = (int(rng.integers(1, 3)), groups * depth, *map(int, rng.integers(1, 90, 2)))
        options = {
            "radius": int(rng.integers(0, 6)),
            "dilation": int(rng.integers(1, 4)),
            "groups": groups,
            "normalize": int(rng.integers(0, 2)),
        }
        a, b = _maps(rng, shape, dtype)
        found, _ = _correlate(driver, a, b, options)
        scales = _SCALES if dtype == "int8" else (1.0, 1.0)
        left, right = (m.astype(np.float64) * s for m, s in zip((a, b), scales, strict=True))
        expected = local_correlation(left, right, **options).astype(found.dtype)
        np.testing.assert_allclose(found, expected, err_msg=f"{shape} {options}",
                                   **_TOLERANCES[dtype])  # fmt: skip
        difference = np.abs(found.astype(np.float64) - expected)
        largest = max(largest, float(difference.max()))
    return largest


def _maps(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> tuple[Maps, Maps]:
    if dtype == "int8":
        a, b = rng.integers(-128, 128, (2, *shape), np.int8)
    else:
        a, b = rng.normal(size=(2, *shape)).astype(dtype)
    return a, b


def _correlate(
    driver: tensorrt_plugin.Driver, a: Maps, b: Maps, options: dict[str, int], samples: int = 0
) -> tuple[Maps, list[float]]:
    """Runs enqueue; int8 maps go in packs of four channels, and their result is float32."""
    n, _, h, w = a.shape
    fields: dict[str, float] = dict(options)
    extra: dict[str, Any] = {"out_type": a.dtype}
    if a.dtype == np.int8:
        fields |= {"a_scale": _SCALES[0], "b_scale": _SCALES[1]}
        extra = {"out_type": np.float32, "logical_shape": a.shape}
        a, b = _packs_of_four(a), _packs_of_four(b)
    channels = options.get("groups", 1) * (2 * options["radius"] + 1) ** 2
    out: tuple[Maps, list[float]] = driver.correlate(
        a, b, out_shape=(n, channels, h, w), fields=fields, samples=samples, **extra
    )
    return out


def _packs_of_four(maps: Maps) -> Maps:
    """(N, C, H, W) as (N, ceil(C / 4), H, W, 4)."""
    n, c, h, w = maps.shape
    padded = np.zeros((n, -(-c // 4) * 4, h, w), np.int8)
    padded[:, :c] = maps
    return np.ascontiguousarray(padded.reshape(n, -1, 4, h, w).transpose(0, 1, 3, 4, 2))


def _timed(driver: tensorrt_plugin.Driver, samples: int) -> dict[str, Any]:
    copies = [float(line) for line in _lines(driver.program, "copy", _COPY_BYTES, 50) if line]
    bytes_per_us = 2 * _COPY_BYTES / float(np.median(copies))
    rng = np.random.default_rng(1)
    rows = []
    for shape, radius in _TIMED:
        for dtype in _TOLERANCES:
            a, b = _maps(rng, shape, dtype)
            out, times_us = _correlate(driver, a, b, {"radius": radius}, samples)
            floor_us = (a.nbytes + b.nbytes + out.nbytes) / bytes_per_us
            row = {
                "shape": shape, "radius": radius, "type": dtype, "samples_us": times_us,
                "us": percentiles(times_us), "floor_us": floor_us,
                "share_of_floor": floor_us / float(np.median(times_us)),
                "localcorr": {} if dtype == "int8" else _time_peers(a, b, out, radius, samples),
            }  # fmt: skip
            rows.append(row)
            print(f"{shape} R{radius} {dtype}: {row['us']['p50']:.1f} us, "
                  f"floor {floor_us:.1f} us, localcorr {_medians(row['localcorr'])}")  # fmt: skip
    return {"copy_gb_per_s": bytes_per_us / 1e3, "timed": rows}


def _medians(peers: dict[str, Any]) -> dict[str, Any]:
    return {name: p if isinstance(p, str) else p["us"]["p50"] for name, p in peers.items()}


def _time_peers(a: Maps, b: Maps, expected: Maps, radius: int, samples: int) -> dict[str, Any]:
    """Times localcorr's kernels on the same maps; a kernel that is not there says why."""
    try:
        import torch
        from localcorr import get_localcorr_sampler
    except ImportError as error:
        return {"localcorr": f"not timed: {error}"}
    left, right = (torch.from_numpy(maps).cuda() for maps in (a, b))
    results: dict[str, Any] = {}
    for mode in ("localcorr_triton", "localcorr_cuda"):
        try:
            sampler = get_localcorr_sampler(patch_size=2 * radius + 1, corr_mode=mode)
            out = sampler(left, right)
        except (RuntimeError, ValueError, ImportError) as error:
            results[mode] = f"not timed: {error}"
            continue
        # It sums where the definition takes the mean; both round at 11 or 24 bits.
        mean = (out.float() / a.shape[1]).reshape(expected.shape).cpu().numpy()
        tolerance = 4 * _TOLERANCES[a.dtype.name]["rtol"]
        np.testing.assert_allclose(mean, expected.astype(np.float32), rtol=tolerance, atol=1e-2)
        times_us = []
        for sample in range(-20, samples):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            sampler(left, right)
            end.record()
            end.synchronize()
            if sample >= 0:
                times_us.append(1e3 * begin.elapsed_time(end))
        results[mode] = {"samples_us": times_us, "us": percentiles(times_us)}
    return results


if __name__ == "__main__":
    main()
