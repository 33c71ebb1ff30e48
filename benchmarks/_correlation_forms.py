"""Ways to compute the correlation on a CPU, each as a function that runs it once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper

from cclseg.spec import ModelSpec
from cclseg_export.operator import correlation_nodes, inline_function, make_model, remove_function
from cclseg_export.to_onnx import to_onnx
from cclseg_trainer.checkpoint import Checkpoint
from cclseg_trainer.config import TrainConfig
from cclseg_trainer.models import build_model

SCALES = (0.03, 0.07)
HOSTS = ("onnxruntime", "openvino")

Run = Callable[[], np.ndarray]
Open = Callable[[], Run]
Inputs = dict[str, np.ndarray]


def float_maps(channels: int, size: int) -> Inputs:
    """Returns two maps of standard normal values."""
    maps = np.random.default_rng(0).normal(size=(2, 1, channels, size, size)).astype(np.float32)
    return dict(zip("ab", maps, strict=True))


def int8_maps(channels: int, size: int) -> Inputs:
    """Returns two maps of all int8 values but the lowest."""
    maps = np.random.default_rng(1).integers(-127, 128, (2, 1, channels, size, size), np.int8)
    return dict(zip("ab", maps, strict=True))


def open_model(
    host: str, model: onnx.ModelProto, inputs: Inputs, threads: int, kernel: Path | None = None
) -> Run:
    """Loads a model in a library and returns a function that runs it."""
    if host == "openvino":
        return _open_in_openvino(model, inputs, threads, kernel)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if kernel is not None:
        options.register_custom_ops_library(str(kernel))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, inputs)[0]


def _open_in_openvino(
    model: onnx.ModelProto, inputs: Inputs, threads: int, kernel: Path | None
) -> Run:
    core = openvino.Core()
    if kernel is not None:
        core.add_extension(str(kernel))
    network = core.read_model(model.SerializeToString())
    network.reshape({name: list(maps.shape) for name, maps in inputs.items()})
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = core.compile_model(network, "CPU", options).create_infer_request()

    def run() -> np.ndarray:
        request.infer(inputs, share_inputs=True)
        return request.get_output_tensor(0).data

    return run


def operator_models(
    channels: int, size: int, radius: int
) -> dict[str, tuple[onnx.ModelProto, Inputs]]:
    """Returns the forms of one correlation, those of int8 maps by a name with "int8" in it."""
    floats, integers = float_maps(channels, size), int8_maps(channels, size)
    shape = floats["a"].shape
    body = make_model(shape, radius=radius)
    node = remove_function(make_model(shape, radius=radius))
    int8_node = remove_function(make_model(shape, radius=radius, dtype="int8", scales=SCALES))
    return {
        "shift by shift": (shift_model(shape, radius), floats),
        "body": (inline_function(body), floats),
        "kernel": (node, floats),
        "int8 kernel": (int8_node, integers),
    }


def network_models(input_hw: tuple[int, int]) -> dict[str, tuple[onnx.ModelProto, Inputs]]:
    """Returns CCL-lite0 with random weights, its correlations over windows in several forms.

    In the form "copied" a copy of one map stands in the place of each result; what the others take
    longer is the share of the operator.
    """
    network = build_model("ccl-lite0", num_classes=6)
    config = network.config
    spec = ModelSpec(
        name=config.name,
        class_names=tuple(f"class {index}" for index in range(config.num_classes)),
        bands=("red", "green", "blue"),
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
        input_hw=input_hw,
    )
    checkpoint = Checkpoint(config, TrainConfig(), spec, network.state_dict(), 1, {})
    standard, node = (to_onnx(checkpoint, keep_operator=keep) for keep in (False, True))
    images = np.random.default_rng(0).normal(size=(1, 3, *input_hw)).astype(np.float32)
    inputs = {"images": images}
    return {
        "standard operators": (standard, inputs),
        "body": (inline_function(node), inputs),
        "kernel": (node, inputs),
        "copied": (_copied(node, config.groups * config.group_channels), inputs),
    }


def _copied(model: onnx.ModelProto, channels: int) -> onnx.ModelProto:
    """Puts copies of the first map in the place of each node, cut to the channels of its result."""
    copied = remove_function(onnx.ModelProto.FromString(model.SerializeToString()))
    for node in correlation_nodes(copied):
        options: dict[str, Any] = {e.name: helper.get_attribute_value(e) for e in node.attribute}
        lags = options["groups"] * (2 * options["radius"] + 1) ** 2
        name = node.output[0]
        constants = {"zero": [0], "lags": [lags], "axis": [1]}
        copied.graph.initializer.extend(
            helper.make_tensor(f"{name}.{key}", TensorProto.INT64, [1], value)
            for key, value in constants.items()
        )
        cut = [f"{name}.copies", *(f"{name}.{key}" for key in constants)]
        maps = [node.input[0]] * -(-lags // channels)
        index = list(copied.graph.node).index(node)
        del copied.graph.node[index]
        copied.graph.node.insert(index, helper.make_node("Slice", cut, [name]))
        copied.graph.node.insert(index, helper.make_node("Concat", maps, cut[:1], axis=1))
    return copied


def matrix_model(size: int) -> tuple[onnx.ModelProto, Inputs]:
    """Returns a product of two square matrices, to show what arithmetic this machine reaches."""
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, (size, size)) for n in ("a", "b", "c")
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])], "product", infos[:2], infos[2:]
    )
    matrices = np.random.default_rng(0).normal(size=(2, size, size)).astype(np.float32)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model, dict(zip("ab", matrices, strict=True))


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
