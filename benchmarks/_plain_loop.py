"""What one writes by hand to segment a video, one step after another."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cclseg.backends.onnx_runtime import onnxruntime
from cclseg.backends.open_vino import openvino
from cclseg.tiling import TilePlan, plan_tiles

if TYPE_CHECKING:
    from pathlib import Path

    from cclseg import ModelSpec
    from cclseg.frame import FloatArray, Image, Mask

Infer = Callable[["FloatArray"], "FloatArray"]


def read_frames(video: Path, count: int) -> Iterator[Image]:
    """Decodes the first frames of a video."""
    capture = cv2.VideoCapture(str(video))
    for index in range(count):
        image = capture.read()[1]
        if image is None:
            sys.exit(f"{video} has {index} frames only; ask for fewer with --frames")
        yield image
    capture.release()


def padded_frame(frame: Image, spec: ModelSpec) -> tuple[Image, TilePlan]:
    """Returns a frame with mirrored edges, so that all tiles lie inside, and its tiles."""
    height, width = frame.shape[:2]
    plan = plan_tiles(
        (height, width), spec.input_hw, overlap=spec.overlap, stride=spec.output_stride
    )
    bottom = plan.canvas_hw[0] * plan.stride - height
    right = plan.canvas_hw[1] * plan.stride - width
    padded = cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
    return np.asarray(padded, np.uint8), plan


def plain_mask(frame: Image, spec: ModelSpec, infer: Infer) -> Mask:
    """Segments one frame."""
    padded, plan = padded_frame(frame, spec)
    rgb = cv2.cvtColor(padded, cv2.COLOR_BGR2RGB).astype(np.float32)
    normal = (rgb - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    canvas = np.zeros((spec.num_classes, *plan.canvas_hw), np.float32)
    for index, (top, left) in enumerate(plan.corners):
        tile = normal[top : top + spec.input_hw[0], left : left + spec.input_hw[1]]
        logits = infer(np.ascontiguousarray(tile.transpose(2, 0, 1)[None]))[0]
        _add(canvas, plan, index, logits)
    full = [cv2.resize(plane, padded.shape[1::-1]) for plane in canvas]
    mask = np.argmax(full, axis=0)[: frame.shape[0], : frame.shape[1]]
    return mask.astype(np.uint8)


def _add(canvas: FloatArray, plan: TilePlan, index: int, logits: FloatArray) -> None:
    row, column = divmod(index, len(plan.lefts))
    y, x = plan.tops[row] // plan.stride, plan.lefts[column] // plan.stride
    weights = np.outer(plan.row_weights[row], plan.column_weights[column])
    canvas[:, y : y + logits.shape[1], x : x + logits.shape[2]] += logits * weights


def _onnxruntime(path: Path, spec: ModelSpec, threads: int) -> Infer:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(["logits"], {name: images})[0]


def _openvino(path: Path, spec: ModelSpec, threads: int) -> Infer:
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({model.input(0): [1, len(spec.bands), *spec.input_hw]})
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", options)
    return lambda images: compiled([images])["logits"]


OPENERS: dict[str, Callable[[Path, ModelSpec, int], Infer]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
"""Opens a network in each library, as its documentation shows."""
