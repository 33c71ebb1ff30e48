"""Builds a TensorRT for RTX engine from an ONNX file; its parser ends the process when it fails.

Started as ``rtx_build.py PLUGIN MODEL ENGINE`` with the parser's libraries on LD_LIBRARY_PATH.
Prints one JSON line: the layers of the parsed network, the types of its plugin's inputs and output,
and the bytes of the engine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tensorrt_rtx_bindings as trt

FREE_SIZES = (1, 48, 64)  # smallest, optimal and largest value of every dynamic size


def main(plugin: Path, model: Path, engine: Path) -> None:
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    builder.get_plugin_registry().load_library(str(plugin))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.read_bytes()):
        sys.exit("\n".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        sizes = [[free if size == -1 else size for size in tensor.shape] for free in FREE_SIZES]
        profile.set_shape(tensor.name, *sizes)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        sys.exit("no engine was built")
    engine.write_bytes(plan)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    output = network.get_output(0)
    sys.stdout.write(
        json.dumps(
            {
                "layers": [layer.type.name for layer in layers],
                "plugin_types": _types_at_plugins(layers),
                "output_type": output.dtype.name,
                "output_shape": list(output.shape),
                "engine_bytes": plan.nbytes,
            }
        )
        + "\n"
    )


def _types_at_plugins(layers: list[trt.ILayer]) -> list[str]:
    """Types of the inputs and outputs of each plugin, one after the other."""
    tensors = [
        tensor
        for layer in layers
        if layer.type.name == "PLUGIN_V3"
        for tensor in (
            *map(layer.get_input, range(layer.num_inputs)),
            *map(layer.get_output, range(layer.num_outputs)),
        )
    ]
    return [tensor.dtype.name for tensor in tensors]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
