"""Times the correlation on this CPU: standard operators against the compiled kernel.

Measures one correlation in every form, how the kernel's time grows with radius, channels and size
against the floors of arithmetic and memory, and the operator's share of a whole network. Writes raw
samples and percentiles as JSON, and the growth as a plot beside it. Every form's numbers are
checked against the definition first; a form that differs ends the run.

A script and not a suite of pytest-benchmark: forms are measured in turns, each alone in its session
and several times, because idle threads of one library take the processor from another; and all
benchmarks here record device, versions and commit in one form.

    python benchmarks/cpu_operator.py --samples 200
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _correlation_forms import (
    HOSTS,
    SCALES,
    Open,
    Run,
    float_maps,
    matrix_model,
    network_models,
    open_model,
    operator_models,
)
from _record import percentiles, write_result

from cclseg.correlation import local_correlation
from cclseg.ops_build import build_cpu, find_cpu_library
from cclseg_export.operator import make_model, remove_function

WARM_UP = 10
TURNS = 4
GOALS = {"C64 64x64 R4": (64, 64, 4), "C32 128x128 R3": (32, 128, 3)}
GROWTH = {  # channels, size, radius: one of them grows at a time
    "radius": tuple((64, 64, radius) for radius in range(7)),
    "channels": tuple((channels, 64, 4) for channels in (8, 16, 32, 64, 128, 256)),
    "size": tuple((64, size, 4) for size in (16, 32, 64, 128, 256)),
}
NETWORK_HW = (512, 512)


def main() -> None:
    """Measures everything and writes it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("-o", "--output", type=Path, help="result file; the plot stands beside it")
    options = parser.parse_args()
    kernels = {host: find_cpu_library(host) for host in HOSTS}
    if None in kernels.values():
        kernels = build_cpu(hosts=HOSTS)
    samples = options.samples
    forms = {
        name: in_turns(forms_of(*case, options.threads, kernels), samples=samples)
        for name, case in GOALS.items()
    }
    for name, figures in forms.items():
        tell(name, figures)
        print(f"{name}: {compared(figures)}")
    content = {
        "threads": options.threads,
        "forms": forms,
        "compared": {name: compared(figures) for name, figures in forms.items()},
        "peaks": measure_peaks(options.threads, samples),
        "growth": measure_growth(options.threads, kernels["onnxruntime"], samples),
        "network": measure_network(options.threads, kernels, samples // 2),
    }
    path = write_result("cpu_operator", content, options.output)
    plot_growth(content, path.with_suffix(".png"))
    print(path)


def forms_of(
    channels: int, size: int, radius: int, threads: int, kernels: dict[str, Path]
) -> dict[str, Open]:
    """Returns every form of one correlation in both libraries, checked against the definition."""
    opened = {}
    for form, (model, inputs) in operator_models(channels, size, radius).items():
        scales = SCALES if "int8" in form else (1.0, 1.0)
        maps = (inputs[name] * scale for name, scale in zip("ab", scales, strict=True))
        expected = local_correlation(*maps, radius=radius)
        for host in HOSTS:
            kernel = kernels[host] if "kernel" in form else None
            name = f"{host}, {form}"
            opened[name] = partial(open_model, host, model, inputs, threads, kernel)
            found = opened[name]()()
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=name)
    return opened


def compared(figures: dict[str, Any]) -> dict[str, float]:
    """Returns the ratios that the goals are stated in."""
    p50 = {name: entry["p50"] for name, entry in figures.items()}
    standard = min(p50[f"{host}, {form}"] for host in HOSTS for form in ("shift by shift", "body"))
    kernel, int8 = (p50[f"onnxruntime, {form}"] for form in ("kernel", "int8 kernel"))
    return {
        "kernel_over_best_standard_form": standard / kernel,
        "kernel_over_shift_by_shift": p50["onnxruntime, shift by shift"] / kernel,
        "int8_over_fp32": kernel / int8,
    }


def measure_peaks(threads: int, samples: int) -> dict[str, float]:
    """Measures what this machine reaches at most: multiply-adds and copied bytes in a second."""
    size = 1024
    product = in_turns({"": partial(open_model, "onnxruntime", *matrix_model(size), threads)},
                       samples=samples // 4)[""]  # fmt: skip
    source = np.ones(1 << 26, np.uint8)
    target = np.empty_like(source)
    copy = in_turns({"": lambda: lambda: np.copyto(target, source)}, samples=samples // 4)[""]
    return {
        "multiply_adds_per_s": size**3 / product["p50"] * 1e3,
        "bytes_per_s": 2 * source.nbytes / copy["p50"] * 1e3,
    }


def measure_growth(threads: int, kernel: Path, samples: int) -> dict[str, list[dict[str, Any]]]:
    """Times the kernel in ONNX Runtime where one thing grows at a time."""
    growth: dict[str, list[dict[str, Any]]] = {}
    for name, cases in GROWTH.items():
        growth[name] = []
        for channels, size, radius in cases:
            inputs = float_maps(channels, size)
            model = remove_function(make_model(inputs["a"].shape, radius=radius))
            opened = {"": partial(open_model, "onnxruntime", model, inputs, threads, kernel)}
            lags = (2 * radius + 1) ** 2
            about = {
                "channels": channels, "size": size, "radius": radius,
                "multiply_adds": channels * size**2 * lags,
                "bytes": 4 * size**2 * (2 * channels + lags),
            }  # fmt: skip
            growth[name].append(about | in_turns(opened, samples=samples)[""])
            print(f"C{channels} {size}x{size} R{radius}: {growth[name][-1]['p50']:.3f} ms")
    return growth


def measure_network(threads: int, kernels: dict[str, Path], samples: int) -> dict[str, Any]:
    """Times a whole network with its correlations in each form, and what share they take."""
    opened = {
        f"{host}, {form}": partial(
            open_model, host, model, inputs, threads, kernels[host] if form == "kernel" else None
        )
        for form, (model, inputs) in network_models(NETWORK_HW).items()
        for host in HOSTS
    }
    figures = in_turns(opened, samples=samples)
    tell("ccl-lite0", figures)
    shares = {}
    for host in HOSTS:
        without = figures[f"{host}, copied"]["p50"]
        for form in ("standard operators", "body", "kernel"):
            name = f"{host}, {form}"
            shares[name] = 1 - without / figures[name]["p50"]
            print(f"share of the operator, {name}: {100 * shares[name]:.1f} %")
    return {"input_hw": NETWORK_HW, "forms": figures, "share_of_operator": shares}


def in_turns(opened: dict[str, Open], *, samples: int) -> dict[str, dict[str, Any]]:
    """Times functions one after another, several times over, each loaded anew and freed."""
    times_ms: dict[str, list[float]] = defaultdict(list)
    for _ in range(TURNS):
        for name, load in opened.items():
            times_ms[name] += time_calls(load(), -(-samples // TURNS))
    return {name: percentiles(times) | {"samples_ms": times} for name, times in times_ms.items()}


def time_calls(run: Run, count: int) -> list[float]:
    """Returns milliseconds of calls after a warm-up."""
    for _ in range(WARM_UP):
        run()
    times_ms = []
    for _ in range(count):
        start = time.perf_counter_ns()
        run()
        times_ms.append((time.perf_counter_ns() - start) / 1e6)
    return times_ms


def tell(title: str, figures: dict[str, Any]) -> None:
    """Prints one line per form."""
    for form, entry in figures.items():
        print(f"{title:16} {form:34} {entry['p50']:9.3f} ms")


def plot_growth(content: dict[str, Any], path: Path) -> None:
    """Draws the kernel's time and both floors over what grows."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    peaks = content["peaks"]
    labels = {
        "radius": "radius (C64, 64 x 64)",
        "channels": "channels (64 x 64, R4)",
        "size": "height and width (C64, R4)",
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
    for axis, (name, entries) in zip(axes, content["growth"].items(), strict=True):
        grows = [entry[name] for entry in entries]
        floors = {
            "arithmetic floor": [
                e["multiply_adds"] / peaks["multiply_adds_per_s"] for e in entries
            ],
            "memory floor": [e["bytes"] / peaks["bytes_per_s"] for e in entries],
        }
        axis.plot(grows, [e["p50"] for e in entries], "o-", color="#1f4e79", label="kernel")
        for (label, floor), style in zip(floors.items(), ("--", ":"), strict=True):
            axis.plot(grows, [1e3 * s for s in floor], style, color="#8a8a8a", label=label)
        axis.set_yscale("log")
        if name != "radius":
            axis.set_xscale("log", base=2)
        axis.set_xticks(grows, [str(value) for value in grows])
        axis.set_xlabel(labels[name])
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("milliseconds")
    axes[0].legend(frameon=False)
    title = f"fp32 correlation in ONNX Runtime, {content['threads']} threads, median"
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
