"""The TensorRT plugin's own enqueue: checked against the definition, timed against its floor.

Usage: python benchmarks/gpu_operator.py [--cases 60] [--samples 300] [-o FILE]
       python benchmarks/gpu_operator.py --emulate

Compiles the plugin for this machine's GPU and a small C++ program that calls it as TensorRT does,
without TensorRT. Random problems of every type, layout and option must match the definition, or the
run fails. Then a time stands beside two others of the same run: the floor, which is reading both
maps and writing the result once at the rate of a plain copy, and the kernels of localcorr where
that and torch are installed. With --emulate the kernels run on the CPU, and nothing is timed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _localcorr
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

_SCALES, _OUT_SCALE = (0.031, 0.007), 0.01  # of int8 maps, and of an int8 result


@dataclass(frozen=True)
class Kind:
    """Types and layout of maps and result, and how far a result may be from the definition."""

    maps: str
    out: str
    packed: bool = False
    rtol: float = 1e-5
    atol: float = 4e-6

    def __str__(self) -> str:
        layout = " in packs of four" if self.packed else ""
        return f"{self.maps}{layout} to {self.out}"


# The last step rounds to 24 bits, to 11 bits, or to 24 bits of an exact sum. An int8 result is
# compared with the unrounded definition: it is the nearest step, but for rounding before that.
_KINDS = (
    Kind("float32", "float32"),
    Kind("float16", "float16", rtol=2**-10),
    Kind("int8", "float32", rtol=4e-6, atol=1e-9),
    Kind("int8", "float32", packed=True, rtol=4e-6, atol=1e-9),
    Kind("int8", "float16", packed=True, rtol=2**-10),
    Kind("int8", "int8", packed=True, rtol=0, atol=0.5001),
)
_TIMED_KINDS = (_KINDS[0], _KINDS[1], _KINDS[3])
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
        folder = Path(name)
        driver = _emulated(folder) if arguments.emulate else _compiled(folder)
        content: dict[str, Any] = {
            "gpu": "emulated" if arguments.emulate else " ".join(_lines(driver.program, "device")),
            "problems_of_each_kind": arguments.cases,
            "largest_errors": {str(k): _errors(driver, k, arguments.cases) for k in _KINDS},
        }
        for kind, errors in content["largest_errors"].items():
            print(f"{kind}: {len(errors)} problems match the definition within {max(errors):.2g}")
        if not arguments.emulate:
            content |= _timed(driver, folder, arguments.samples)
    if arguments.out is None and arguments.emulate:
        return
    out = arguments.out
    if out is None:
        device = re.sub(r"[^a-z0-9]+", "-", content["gpu"].lower()).strip("-")
        out = make_folder(Path(__file__).parent / "results" / device) / "gpu_operator.json"
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


def _errors(driver: tensorrt_plugin.Driver, kind: Kind, cases: int) -> list[float]:
    """Checks random problems; returns the largest absolute error of each."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(cases):
        groups, depth = int(rng.integers(1, 5)), int(rng.integers(1, 17))
        shape = (int(rng.integers(1, 3)), groups * depth, *map(int, rng.integers(1, 90, 2)))
        options = {
            "radius": int(rng.integers(0, 6)),
            "dilation": int(rng.integers(1, 4)),
            "groups": groups,
            "normalize": int(rng.integers(0, 2)),
        }
        a, b = _maps(rng, shape, kind)
        found, _ = _correlate(driver, kind, a, b, options)
        expected = _defined(kind, a, b, options)
        np.testing.assert_allclose(
            found.astype(np.float64), expected.astype(np.float64), rtol=kind.rtol, atol=kind.atol,
            err_msg=f"{kind}: {shape} {options}",
        )  # fmt: skip
        errors.append(float(np.abs(found.astype(np.float64) - expected).max()))
    return errors


def _maps(rng: np.random.Generator, shape: tuple[int, ...], kind: Kind) -> tuple[Maps, Maps]:
    if kind.maps == "int8":
        a, b = rng.integers(-128, 128, (2, *shape), np.int8)
    else:
        a, b = rng.normal(size=(2, *shape)).astype(kind.maps)
    return a, b


def _defined(kind: Kind, a: Maps, b: Maps, options: dict[str, int]) -> Maps:
    """Returns the definition's result in the type of the kind; in steps, not rounded, for int8."""
    scales = _SCALES if kind.maps == "int8" else (1.0, 1.0)
    left, right = (m.astype(np.float64) * s for m, s in zip((a, b), scales, strict=True))
    out: Maps = local_correlation(left, right, **options)
    if kind.out == "int8":
        return np.clip(out / _OUT_SCALE, -128, 127)
    return out.astype(kind.out)


def _correlate(
    driver: tensorrt_plugin.Driver,
    kind: Kind,
    a: Maps,
    b: Maps,
    options: dict[str, int],
    samples: int = 0,
) -> tuple[Maps, list[float]]:
    """Runs enqueue; returns the result and the microseconds of each sample."""
    n, _, h, w = shape = a.shape
    fields: dict[str, float] = dict(options)
    if kind.maps == "int8":
        fields |= {
            "a_scale": _SCALES[0], "b_scale": _SCALES[1], "out_scale": _OUT_SCALE,
            "out_dtype": tensorrt_plugin.ONNX_TYPES[kind.out],
        }  # fmt: skip
    if kind.packed:
        a, b = _packs_of_four(a), _packs_of_four(b)
    channels = options.get("groups", 1) * (2 * options["radius"] + 1) ** 2
    out: tuple[Maps, list[float]] = driver.correlate(
        a, b, out_shape=(n, channels, h, w), out_type=kind.out, fields=fields, samples=samples,
        logical_shape=shape if kind.packed else None,
    )  # fmt: skip
    return out


def _packs_of_four(maps: Maps) -> Maps:
    """(N, C, H, W) as (N, ceil(C / 4), H, W, 4)."""
    n, c, h, w = maps.shape
    padded = np.zeros((n, -(-c // 4) * 4, h, w), np.int8)
    padded[:, :c] = maps
    return np.ascontiguousarray(padded.reshape(n, -1, 4, h, w).transpose(0, 1, 3, 4, 2))


def _timed(driver: tensorrt_plugin.Driver, folder: Path, samples: int) -> dict[str, Any]:
    copies = [float(line) for line in _lines(driver.program, "copy", _COPY_BYTES, 50) if line]
    bytes_per_us = 2 * _COPY_BYTES / float(np.median(copies))
    reason = _localcorr.missing()
    peer = None if reason else _localcorr.compile_cuda(find_nvcc(), folder)
    rng = np.random.default_rng(1)
    rows = []
    for shape, radius in _TIMED:
        for kind in _TIMED_KINDS:
            a, b = _maps(rng, shape, kind)
            out, times_us = _correlate(driver, kind, a, b, {"radius": radius}, samples)
            floor_us = (a.nbytes + b.nbytes + out.nbytes) / bytes_per_us
            row: dict[str, Any] = {
                "shape": shape, "radius": radius, "kind": str(kind), "samples_us": times_us,
                "us": percentiles(times_us), "floor_us": floor_us,
                "share_of_floor": floor_us / float(np.median(times_us)),
            }  # fmt: skip
            rows.append(row)
            if peer is not None and kind.maps != "int8":
                theirs = _localcorr.time_kernels(peer, a, b, out, radius=radius, samples=samples)
                row["localcorr"] = {
                    name: {"samples_us": t, "us": percentiles(t)} for name, t in theirs.items()
                }
                fastest = min(entry["us"]["p50"] for entry in row["localcorr"].values())
                row["times_faster"] = fastest / row["us"]["p50"]
            print(_line(row))
    return {
        "copy_gb_per_s": bytes_per_us / 1e3, "copy_samples_us": copies, "timed": rows,
        "localcorr": f"not timed: {reason}" if reason else "timed",
    }  # fmt: skip


def _line(row: dict[str, Any]) -> str:
    text = (
        f"{row['shape']} R{row['radius']} {row['kind']}: {row['us']['p50']:.1f} us, "
        f"{100 * row['share_of_floor']:.0f} % of the memory floor"
    )
    if "localcorr" in row:
        text += f", {row['times_faster']:.2f} times localcorr's faster kernel"
    return text


if __name__ == "__main__":
    main()
