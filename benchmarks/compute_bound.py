"""How close a network comes to the rate of one dense convolution, on the same machine and threads.

Usage: python benchmarks/compute_bound.py [MODEL.onnx ...] [--threads 2] [--samples 60] [-o FILE]

The convolution has 256 channels and a 3 x 3 window on a map of 64 x 64, in the precision of the
model: as much arithmetic as a library can get out of the processor. A network's multiply-adds are
those of its convolutions and matrix products, counted from their shapes. Both run in turns, one
tile a call. The ratio of the two rates is what the network gets of what there is.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.inliner
from _record import percentiles, write_result
from onnx import TensorProto, helper, numpy_helper, shape_inference

from cclseg import ModelSpec
from cclseg.backends.choose import load_backend
from cclseg.models import bundled_models

if TYPE_CHECKING:
    from cclseg.backends.base import Backend

_BACKENDS = ("openvino", "onnxruntime")
_CHANNELS, _SIDE, _WINDOW = 256, 64, 3
_WARM_UP_CALLS = 5
_BLOCK_CALLS = 5


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=60, help="calls per network and backend")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    models = arguments.models or list(bundled_models().values())
    with tempfile.TemporaryDirectory() as folder:
        cases = [
            _measured(path, name, Path(folder), arguments) for path in models for name in _BACKENDS
        ]
    content = {"threads": arguments.threads, "convolution_macs": _convolution_macs()}
    print(write_result("compute_bound", content | {"cases": cases}, arguments.out))


def _measured(path: Path, name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures a network and the convolution of its precision on one backend, in turns."""
    backend_class = load_backend(name)
    samples_ms: dict[str, list[float]] = {"network": [], "convolution": []}
    with backend_class.open(path, threads=arguments.threads) as network:
        precision = network.spec.precision
        spec = _write_convolution(folder / f"{precision}.onnx", precision)
        convolution_path = folder / f"{precision}.onnx"
        with backend_class.open(
            convolution_path, spec=spec, threads=arguments.threads
        ) as convolution:
            both = {"network": network, "convolution": convolution}
            for backend in both.values():
                _time(backend, _WARM_UP_CALLS)
            for _ in range(0, arguments.samples, _BLOCK_CALLS):
                for key, backend in both.items():
                    samples_ms[key] += _time(backend, _BLOCK_CALLS)
        macs = {"network": count_macs(path, network.spec), "convolution": _convolution_macs()}
    rates = {key: macs[key] / np.median(samples_ms[key]) / 1e6 for key in macs}
    share = float(rates["network"] / rates["convolution"])
    print(
        f"{network.spec.name} {precision} {name:12} {macs['network'] / 1e9:.2f} GMAC at "
        f"{rates['network']:6.1f} GMAC/s, convolution {rates['convolution']:6.1f}: {share:.0%}"
    )
    return {
        "model": network.spec.name,
        "backend": name,
        "precision": precision,
        "macs": macs["network"],
        "samples_ms": samples_ms,
        "ms": {key: percentiles(values) for key, values in samples_ms.items()},
        "gmacs_per_s": rates,
        "share_of_convolution": share,
    }


def _time(backend: Backend, calls: int) -> list[float]:
    spec = backend.spec
    shape = (1, len(spec.bands), *spec.input_hw)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    samples_ms = []
    for _ in range(calls):
        start_ns = time.perf_counter_ns()
        backend.infer(images)
        samples_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return samples_ms


def count_macs(path: Path, spec: ModelSpec) -> int:
    """Returns the multiply-adds of one tile in a model's convolutions and matrix products."""
    model = onnx.load(path)
    axes = model.graph.input[0].type.tensor_type.shape.dim
    for axis, length in zip(axes, (1, len(spec.bands), *spec.input_hw), strict=True):
        axis.dim_value = length
    del model.graph.value_info[:]
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(onnx.inliner.inline_local_functions(model)).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        shapes[info.name] = tuple(axis.dim_value for axis in info.type.tensor_type.shape.dim)
    macs = 0
    for node in graph.node:
        if node.op_type == "Conv":  # every output is a sum over one filter
            macs += prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            macs += prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return macs


def _convolution_macs() -> int:
    return _CHANNELS**2 * _WINDOW**2 * _SIDE**2


def _write_convolution(path: Path, precision: str) -> ModelSpec:
    """Writes the convolution as an ONNX file, in INT8 with the usual pairs around it."""
    rng = np.random.default_rng(0)
    shape = (_CHANNELS, _CHANNELS, _WINDOW, _WINDOW)
    maps = [1, _CHANNELS, _SIDE, _SIDE]
    if precision == "int8":
        weights = rng.integers(-127, 128, shape, np.int8)
        pair = [
            helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["bytes"]),
            helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["maps"]),
            helper.make_node("DequantizeLinear", ["weights", "weight_scale"], ["filters"], axis=0),
        ]
        constants = {
            "scale": np.float32(0.05),
            "zero": np.uint8(128),
            "weights": weights,
            "weight_scale": np.full(_CHANNELS, 1e-3, np.float32),
        }
    else:
        pair = []
        constants = {"filters": rng.normal(size=shape).astype(np.float32) / 48}
    source = "maps" if pair else "images"
    node = helper.make_node("Conv", [source, "filters"], ["logits"], pads=[1, 1, 1, 1])
    graph = helper.make_graph(
        [*pair, node],
        "convolution",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, maps)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, maps)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    names = tuple(f"channel{index}" for index in range(_CHANNELS))
    return ModelSpec(
        name="convolution",
        class_names=names,
        bands=names,
        input_hw=(_SIDE, _SIDE),
        mean=(0.0,) * _CHANNELS,
        std=(1.0,) * _CHANNELS,
        output_stride=1,
        precision=precision,
    )


if __name__ == "__main__":
    main()
