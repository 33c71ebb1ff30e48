"""A small U-Net with random weights, as other programs would write one, and images for it."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cclseg.spec import ModelSpec

SIZE_HW = (64, 96)
SMOOTH_SPEC = ModelSpec(
    name="unet",
    class_names=("a", "b", "c"),
    input_hw=SIZE_HW,
    output_stride=1,
    mean=(127.0,) * 3,
    std=(128.0,) * 3,
)


class _Graph:
    """Collects the nodes and weights of a network."""

    def __init__(self):
        self.nodes, self.weights = [], []
        self._rng = np.random.default_rng(0)

    def op(self, kind, inputs, output, **attributes):
        # The nodes have no names, as in the files of some programs.
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def store(self, name, array):
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, x, channels, *, kernel=3, stride=1, relu=True):
        given, made = channels
        name = f"conv{len(self.nodes)}"
        spread = np.sqrt(2 / (given * kernel**2))
        weights = self._rng.normal(0, spread, (made, given, kernel, kernel)).astype(np.float32)
        bias = self._rng.normal(0, 0.1, made).astype(np.float32)
        inputs = [x, self.store(f"{name}.w", weights), self.store(f"{name}.b", bias)]
        pads = [kernel // 2] * 4
        self.op("Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)
        return self.op("Relu", [name], f"{name}.relu") if relu else name

    def deconv(self, x, given, made):
        name = f"deconv{len(self.nodes)}"
        weights = self._rng.normal(0, np.sqrt(2 / given), (given, made, 2, 2)).astype(np.float32)
        return self.op(
            "ConvTranspose", [x, self.store(f"{name}.w", weights)], name,
            kernel_shape=[2, 2], strides=[2, 2],
        )  # fmt: skip


def write_unet(path, *, free_size=False):
    """Writes a network with skip connections, a residual, a deconvolution and a resize."""
    g = _Graph()
    shallow = g.conv("picture", (3, 8))
    half = g.op("MaxPool", [shallow], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    middle = g.conv(half, (8, 16))
    inner = g.conv(middle, (16, 16), relu=False)
    middle = g.op("Relu", [g.op("Add", [inner, middle], "sum")], "residual")
    deep = g.conv(middle, (16, 32), stride=2)
    joined = g.op("Concat", [g.deconv(deep, 32, 16), middle], "skip1", axis=1)
    up = g.conv(joined, (32, 16))
    scales = g.store("scales", np.array([1, 1, 2, 2], np.float32))
    large = g.op("Resize", [up, "", scales], "large", mode="linear")
    joined = g.op("Concat", [large, shallow], "skip2", axis=1)
    g.conv(g.conv(joined, (24, 16)), (16, 3), kernel=1, relu=False)
    g.nodes[-1].output[0] = "scores"
    size = ("height", "width") if free_size else SIZE_HW
    batch = "batch" if free_size else 1
    graph = helper.make_graph(
        g.nodes,
        "unet",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, (batch, 3, *size))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (batch, 3, *size))],
        g.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def smooth_tiles(count, *, size_hw=SIZE_HW):
    """Returns network inputs (1, 3, H, W) whose neighbouring pixels are alike."""
    rng = np.random.default_rng(1)
    tiles = []
    for _ in range(count):
        image = cv2.GaussianBlur(rng.uniform(0, 255, (*size_hw, 3)), (0, 0), 2)
        image = 255 * (image - image.min()) / np.ptp(image)
        tile = (np.round(image) - 127) / 128
        tiles.append(np.ascontiguousarray(tile.transpose(2, 0, 1)[None], dtype=np.float32))
    return tiles
