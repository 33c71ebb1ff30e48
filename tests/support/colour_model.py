"""A real network small enough for tests: every 4 x 4 block of pixels gets the nearest colour."""

import numpy as np
from networks import write_graph
from onnx import helper, numpy_helper

from cclseg.spec import ModelSpec
from cclseg.virtual import CLASS_NAMES, PALETTE

# What the classes of a virtual desert look like: roof, sand, asphalt, leaves, deep water (RGB).
_COLOURS = np.array(
    [(245, 242, 235), (175, 172, 168), (72, 70, 68), (66, 84, 52), (28, 36, 38)], np.float32
)


def write_colour_model(path, *, class_names=CLASS_NAMES, tile=128):
    """Writes an ONNX file whose logits are 2 c x - |c|^2: largest for the nearest colour c."""
    spec = ModelSpec(
        name="nearest-colour",
        class_names=tuple(class_names),
        palette=PALETTE,
        input_hw=(tile, tile),
        mean=(0.0, 0.0, 0.0),
        std=(255.0, 255.0, 255.0),
        description="Nearest colour per block; a stand-in of 20 numbers",
        license="Apache-2.0",
    )
    colours = _COLOURS / 255
    return write_graph(
        path,
        [
            helper.make_node(
                "AveragePool", ["images"], ["means"], kernel_shape=[4, 4], strides=[4, 4]
            ),
            helper.make_node("Conv", ["means", "weight", "bias"], ["logits"]),
        ],
        inputs={"images": ["n", 3, tile, tile]},
        outputs={"logits": ["n", 5, tile // 4, tile // 4]},
        metadata=spec.to_metadata(),
        weights=[
            numpy_helper.from_array((2 * colours)[:, :, None, None], "weight"),
            numpy_helper.from_array(-(colours**2).sum(axis=1), "bias"),
        ],
    )
