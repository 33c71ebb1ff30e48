"""Real networks small enough for tests, whose answers are known exactly."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from cclseg.spec import ModelSpec

STRIDE = 4


def brightest_band_spec(*, tile_hw=(32, 32), bands=("red", "green", "blue"), **changes):
    """Returns the spec of the network below: class k is "band k is the brightest"."""
    values = {
        "name": "brightest-band",
        "class_names": tuple(f"{band}est" for band in bands),
        "palette": ((200, 30, 30), (30, 200, 30), (30, 30, 200), (90, 90, 90))[: len(bands)],
        "bands": tuple(bands),
        "input_hw": tile_hw,
        "mean": (0.0,) * len(bands),
        "std": (1.0,) * len(bands),
        "output_stride": STRIDE,
    }
    return ModelSpec(**(values | changes))


def write_brightest_band(path, spec=None, *, open_size=False, metadata=None):
    """Writes a network whose logits are the means of 4 x 4 blocks of its input.

    Args:
        path: Target.
        spec: What the file says of itself; None for :func:`brightest_band_spec`.
        open_size: Leave height and width open instead of fixing them to the spec's.
        metadata: Used instead of the spec's own.
    """
    spec = spec or brightest_band_spec()
    count = len(spec.bands)
    height, width = spec.input_hw
    taken = ["n", count, *(("h", "w") if open_size else (height, width))]
    given = ["n", count, *(("i", "j") if open_size else (height // STRIDE, width // STRIDE))]
    pool = helper.make_node(
        "AveragePool", ["images"], ["logits"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2
    )
    return write_graph(
        path,
        [pool],
        inputs={"images": taken},
        outputs={"logits": given},
        metadata=spec.to_metadata() if metadata is None else metadata,
    )


def write_graph(path, nodes, *, inputs, outputs, metadata=None, weights=(), domains=()):
    """Writes any graph, its inputs and outputs given as {name: shape}."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        list(weights),
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(name, 1) for name in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="tests")
    helper.set_model_props(model, metadata or {})
    onnx.save(model, str(path))
    return path


def block_means(images):
    """Returns what the network must answer: (N, C, H, W) -> (N, C, H / 4, W / 4)."""
    count, bands, height, width = images.shape
    blocks = images.reshape(count, bands, height // STRIDE, STRIDE, width // STRIDE, STRIDE)
    return blocks.mean(axis=(3, 5), dtype=np.float64).astype(np.float32)


def colour_patches(size_hw, *, seed=0, patch=16):
    """Returns a BGR image of one-coloured squares with noise, different for every seed."""
    rng = np.random.default_rng(seed)
    rows, columns = (-(-length // patch) for length in size_hw)
    flat = np.full((rows, columns, 3), 60, np.uint8)
    np.put_along_axis(flat, rng.integers(0, 3, (rows, columns, 1)), 180, axis=2)
    image = flat.repeat(patch, axis=0).repeat(patch, axis=1)[: size_hw[0], : size_hw[1]]
    return image + rng.integers(0, 40, image.shape, np.uint8)
