"""End-to-end rate of a job on a video, against a plain loop that does the same work.

Usage: python benchmarks/stream.py [VIDEO] [-m MODEL] [--backend B ...] [--threads 2] [--rounds 5]

The plain loop is what one writes by hand: read, cut the same tiles, normalise, infer, blend with
the same weights, enlarge, argmax, draw, write, one after another with the same libraries, threads
and precision. Loop and job take turns in one process; loading the model is in neither. The masks
of both must agree, or the run fails. Without a video a virtual flight is rendered.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from _record import percentiles, write_result
from numpy.typing import NDArray

from cclseg import ModelSpec, Segmenter, open_sink, open_source
from cclseg.backends.onnx_runtime import onnxruntime
from cclseg.backends.open_vino import openvino
from cclseg.models import DEFAULT_MODEL, find_model
from cclseg.pipeline import run_job
from cclseg.tiling import TilePlan, plan_tiles

_ALPHA = 0.45
_LEAST_AGREEMENT = 0.999
_AGREEMENT_FRAMES = 3

Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", nargs="?", type=Path)
    parser.add_argument("-m", "--model", default=DEFAULT_MODEL)
    parser.add_argument("--backend", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = arguments.video or _rendered_video(Path(folder) / "virtual.mp4")
        cases = [
            _measured(name, video, Path(folder) / "out.mp4", arguments)
            for name in arguments.backend
        ]
        content = {"video": video.name, "threads": arguments.threads, "cases": cases}
    print(write_result("stream", content, arguments.out))


def _measured(
    name: str, video: Path, target: Path, arguments: argparse.Namespace
) -> dict[str, object]:
    """Measures loop and job on one backend, in turns."""
    path = find_model(arguments.model)
    fps: dict[str, list[float]] = {"loop": [], "job": []}
    stages: list[dict[str, float]] = []
    with Segmenter(path, backend=name, threads=arguments.threads) as segmenter:
        infer = _OPENERS[name](path, segmenter.spec, arguments.threads)
        agreement = _agreement(video, segmenter, infer)
        if agreement < _LEAST_AGREEMENT:
            sys.exit(f"{name}: loop and job agree on {agreement:.2%} of the pixels only")
        for number in range(arguments.rounds + 1):
            start_ns = time.perf_counter_ns()
            frames = _plain_loop(video, target, segmenter.spec, infer)
            loop_fps = frames / ((time.perf_counter_ns() - start_ns) / 1e9)
            with open_source(video) as source:
                sink = open_sink(target, fps=source.fps, codec="mpeg4")  # the loop's own
                summary = run_job(source, segmenter, sink)
            if summary.failed or summary.done != frames:
                sys.exit(f"{name}: the job did {summary.done} of {frames} frames: {summary.failed}")
            if number:  # the first round warms up
                fps["loop"].append(loop_fps)
                fps["job"].append(summary.fps)
                stages.append(summary.stage_ms)
    ratio = float(np.median(fps["job"]) / np.median(fps["loop"]))
    print(
        f"{name:12} {frames} frames x {arguments.rounds}: loop {np.median(fps['loop']):6.2f} fps, "
        f"job {np.median(fps['job']):6.2f} fps, {ratio:.2f}x, masks agree on {agreement:.4%}"
    )
    return {
        "backend": name,
        "model": segmenter.spec.name,
        "precision": segmenter.spec.precision,
        "frames": frames,
        "samples_fps": fps,
        "fps": {kind: percentiles(values) for kind, values in fps.items()},
        "job_stage_ms": stages,
        "ratio_of_medians": ratio,
        "agreement": agreement,
    }


def _plain_loop(video: Path, target: Path, spec: ModelSpec, infer: Infer) -> int:
    """Does the job's work frame by frame; returns the number of frames."""
    capture = cv2.VideoCapture(str(video))
    size_wh = tuple(
        int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    fps = capture.get(cv2.CAP_PROP_FPS)
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), fps, size_wh)
    palette = np.array(spec.palette, np.uint8)[:, ::-1]
    frames = 0
    while (frame := capture.read()[1]) is not None:
        mask = _plain_mask(frame, spec, infer)
        colours = palette[mask]
        overlay = cv2.addWeighted(frame, 1 - _ALPHA, colours, _ALPHA, 0)
        borders = np.zeros(mask.shape, bool)
        borders[:, :-1] = mask[:, 1:] != mask[:, :-1]
        borders[:-1] |= mask[1:] != mask[:-1]
        overlay[borders] = colours[borders]
        writer.write(overlay)
        frames += 1
    capture.release()
    writer.release()
    return frames


def _plain_mask(frame: NDArray[np.uint8], spec: ModelSpec, infer: Infer) -> NDArray[np.uint8]:
    plan = plan_tiles(
        frame.shape[:2], spec.input_hw, overlap=spec.overlap, stride=spec.output_stride
    )
    height, width = plan.canvas_hw[0] * plan.stride, plan.canvas_hw[1] * plan.stride
    bottom, right = height - frame.shape[0], width - frame.shape[1]
    padded = cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
    rgb = cv2.cvtColor(padded, cv2.COLOR_BGR2RGB).astype(np.float32)
    normal = (rgb - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    canvas = np.zeros((spec.num_classes, *plan.canvas_hw), np.float32)
    for index, (top, left) in enumerate(plan.corners):
        tile = normal[top : top + spec.input_hw[0], left : left + spec.input_hw[1]]
        logits = infer(np.ascontiguousarray(tile.transpose(2, 0, 1)[None]))[0]
        _add(canvas, plan, index, logits)
    full = [cv2.resize(plane, (width, height)) for plane in canvas]
    return np.argmax(full, axis=0)[: frame.shape[0], : frame.shape[1]].astype(np.uint8)


def _add(
    canvas: NDArray[np.float32], plan: TilePlan, index: int, logits: NDArray[np.float32]
) -> None:
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


_OPENERS: dict[str, Callable[[Path, ModelSpec, int], Infer]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def _agreement(video: Path, segmenter: Segmenter, infer: Infer) -> float:
    """Returns the share of pixels on which loop and segmenter agree, over the first frames."""
    same = []
    with open_source(video) as source:
        for frame in source:
            mask = _plain_mask(frame.image, segmenter.spec, infer)
            same.append(float((segmenter(frame.image).mask == mask).mean()))
            if len(same) == _AGREEMENT_FRAMES:
                break
    return float(np.mean(same))


def _rendered_video(path: Path) -> Path:
    """Renders a virtual flight of 120 frames at 1280 x 720."""
    with open_source("virtual:seed=1,frames=120,size=1280x720") as source:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (1280, 720))
        for frame in source:
            writer.write(frame.image)
        writer.release()
    return path


if __name__ == "__main__":
    main()
