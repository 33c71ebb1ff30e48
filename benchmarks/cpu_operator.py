"""Times the correlation on this CPU: standard operators against the compiled kernel.

Writes raw samples and percentiles as JSON. Every form's numbers are checked against the definition
first; a form that differs ends the run. Figures compare only within one run on a quiet machine.

    python benchmarks/cpu_operator.py --samples 200
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
from _record import write_result
from onnx import TensorProto, helper

from cclseg.correlation import local_correlation
from cclseg.ops_build import build_cpu, find_cpu_library
from cclseg_export.operator import inline_function, make_model, remove_function

WARM_UP = 20
GOALS = {"C64 64x64 R4": (64, 64, 4), "C32 128x128 R3": (32, 128, 3)}
GROWTH = (  # channels, size, radius: one of them grows at a time
    *((64, 64, radius) for radius in range(5)),
    *((channels, 64, 4) for channels in (8, 16, 32, 128)),
    *((64, size, 4) for size in (16, 32, 128)),
)
SCALES = (0.03, 0.07)

Run = Callable[[], np.ndarray]


def main() -> None:
    """Measures the forms of both goals, and how the kernel's time grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("-o", "--output", type=Path, help="result file")
    options = parser.parse_args()
    libraries = {host: find_cpu_library(host) for host in ("onnxruntime", "openvino")}
    if None in libraries.values():
        libraries = build_cpu(hosts=["onnxruntime", "openvino"])
    measure = partial(sample, samples=options.samples)
    forms: dict[str, Any] = {}
    for name, (channels, size, radius) in GOALS.items():
        runs = all_forms(channels, size, radius, options.threads, libraries)
        forms[name] = {form: measure(run) for form, run in runs.items()}
        for form, figures in forms[name].items():
            print(f"{name:16} {form:32} {figures['p50_ms']:8.3f} ms")
    growth = []
    for channels, size, radius in GROWTH:
        floors = {
            "channels": channels, "size": size, "radius": radius,
            "multiply_adds": channels * size**2 * (2 * radius + 1) ** 2,
            "bytes": 4 * size**2 * (2 * channels + (2 * radius + 1) ** 2),
        }  # fmt: skip
        a, b = float_maps(channels, size)
        run = in_onnxruntime(
            remove_function(make_model(a.shape, radius=radius)),
            a, b, options.threads, libraries["onnxruntime"],
        )  # fmt: skip
        growth.append(floors | measure(run))
        print(floors, f"{growth[-1]['p50_ms']:.3f} ms")
    content = {"threads": options.threads, "forms": forms, "growth": growth}
    print(write_result("cpu_operator", content, options.output))


def all_forms(
    channels: int, size: int, radius: int, threads: int, libraries: dict[str, Path]
) -> dict[str, Run]:
    """Returns every form as a function of no arguments, checked against the definition."""
    a, b = float_maps(channels, size)
    integers = np.random.default_rng(1).integers(-127, 128, (2, *a.shape), np.int8)
    shifts = shift_model(a.shape, radius)
    body = make_model(a.shape, radius=radius)
    node = remove_function(make_model(a.shape, radius=radius))
    int8_node = remove_function(make_model(a.shape, radius=radius, dtype="int8", scales=SCALES))
    ort, vino = libraries["onnxruntime"], libraries["openvino"]
    runs = {
        "onnxruntime, shift by shift": in_onnxruntime(shifts, a, b, threads),
        "onnxruntime, band form": in_onnxruntime(body, a, b, threads),
        "onnxruntime, kernel": in_onnxruntime(node, a, b, threads, ort),
        "openvino, shift by shift": in_openvino(shifts, a, b, threads),
        "openvino, band form": in_openvino(inline_function(body), a, b, threads),
        "openvino, kernel": in_openvino(node, a, b, threads, vino),
    }
    expected = local_correlation(a, b, radius=radius)
    for name, run in runs.items():
        np.testing.assert_allclose(run(), expected, rtol=1e-4, atol=1e-5, err_msg=name)
    runs["onnxruntime, int8 kernel"] = in_onnxruntime(int8_node, *integers, threads, ort)
    runs["openvino, int8 kernel"] = in_openvino(int8_node, *integers, threads, vino)
    scaled = (m * s for m, s in zip(integers, SCALES, strict=True))
    expected = local_correlation(*scaled, radius=radius)
    for host in ("onnxruntime", "openvino"):
        found = runs[f"{host}, int8 kernel"]()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=host)
    return runs


def float_maps(channels: int, size: int) -> np.ndarray:
    """Returns two maps of standard normal values."""
    return np.random.default_rng(0).normal(size=(2, 1, channels, size, size)).astype(np.float32)


def shift_model(shape: tuple[int, ...], radius: int) -> onnx.ModelProto:
    """Makes the plain form: one slice, product and mean per lag."""
    height, width = shape[2:]
    constants = {"pads": [0, 0, radius, radius] * 2, "axes": [2, 3], "channel": [1]}
    nodes = [helper.make_node("Pad", ["b", "pads"], ["padded"])]
    lags = []
    for lag in range((2 * radius + 1) ** 2):
        y, x = divmod(lag, 2 * radius + 1)
        constants |= {f"start{lag}": [y, x], f"end{lag}": [y + height, x + width]}
        window = ["padded", f"start{lag}", f"end{lag}", "axes"]
        nodes += [
            helper.make_node("Slice", window, [f"seen{lag}"]),
            helper.make_node("Mul", ["a", f"seen{lag}"], [f"product{lag}"]),
            helper.make_node("ReduceMean", [f"product{lag}", "channel"], [f"lag{lag}"]),
        ]
        lags.append(f"lag{lag}")
    nodes.append(helper.make_node("Concat", lags, ["out"], axis=1))
    graph = helper.make_graph(
        nodes,
        "shifts",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "ab"],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, len(lags), height, width))],
        [
            helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
            for name, values in constants.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def in_onnxruntime(
    model: onnx.ModelProto, a: np.ndarray, b: np.ndarray, threads: int, library: Path | None = None
) -> Run:
    """Returns a function that runs a model in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if library is not None:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"a": a, "b": b})[0]


def in_openvino(
    model: onnx.ModelProto, a: np.ndarray, b: np.ndarray, threads: int, library: Path | None = None
) -> Run:
    """Returns a function that runs a model in OpenVINO, in float32."""
    core = openvino.Core()
    if library is not None:
        core.add_extension(str(library))
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    network = core.read_model(model.SerializeToString())
    request = core.compile_model(network, "CPU", options).create_infer_request()

    def run() -> np.ndarray:
        request.infer({"a": a, "b": b}, share_inputs=True)
        return request.get_output_tensor(0).data

    return run


def sample(run: Run, *, samples: int) -> dict[str, Any]:
    """Times a function after a warm-up."""
    for _ in range(WARM_UP):
        run()
    times_ms = []
    for _ in range(samples):
        start = time.perf_counter_ns()
        run()
        times_ms.append((time.perf_counter_ns() - start) / 1e6)
    p50, p95, p99 = np.percentile(times_ms, (50, 95, 99))
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "n": samples, "samples_ms": times_ms}


if __name__ == "__main__":
    main()
