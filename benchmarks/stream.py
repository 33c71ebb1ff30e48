"""Rate of a stream of video frames, against a plain loop and against OpenVINO Model API.

Usage: python benchmarks/stream.py [VIDEO] [-m MODEL] [--backend B ...] [--threads 2]
           [--frames 48] [--rounds 4] [-o FILE]

Each contender decodes the same frames and gives each a mask at its own size, with the same network,
library, number of threads and precision, and as many runs of the network:

- "stream" is ``Segmenter.stream``.
- "loop" is what one writes by hand: read, cut the same tiles, normalise, infer, blend with the same
  weights, enlarge, argmax, one after another.
- "model-api" feeds the same tiles to the AsyncPipeline of OpenVINO Model API, with one stream of
  the library per thread, and lets its SegmentationModel prepare and finish them. It neither blends
  tiles nor interpolates, so its work is less. Only where it is installed; it asks for an older
  OpenCV, which it does not need, so: pip install --no-deps openvino-model-api==0.4.7

They take turns in one process; loading the model is in none of them. The masks of loop and stream
must agree, or the run fails. Then the video is played at its own pace, as a camera would, for the
age of results under the policy "latest"; and once more through a network that costs nothing, for
the processor time per frame outside inference, decoding included. Without a video a virtual flight
is rendered.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from _model_api import MODEL_API, ModelApi
from _plain_loop import OPENERS, Infer, plain_mask, read_frames
from _record import percentiles, write_result
from _replay import Replay, first_logits

from cclseg import Segmenter, open_source
from cclseg.models import DEFAULT_MODEL, find_model

if TYPE_CHECKING:
    from cclseg import ModelSpec
    from cclseg.frame import Image, Mask

_WARM_UP_FRAMES = 12  # OpenVINO is compiled for parallel streams within these
_AGREEMENT_FRAMES = 3
_LEAST_AGREEMENT = {"loop": 0.999, MODEL_API: 0.85}


@dataclass
class Contender:
    """One way from video to masks, with its samples."""

    masks: Callable[[int], Iterator[Mask]]
    fps: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def measure(self, frames: int) -> None:
        """Adds one sample, so many frames."""
        cpu_ns, start_ns = time.process_time_ns(), time.perf_counter_ns()
        done = sum(1 for _ in self.masks(frames))
        self.fps.append(done / ((time.perf_counter_ns() - start_ns) / 1e9))
        self.cpu_ms.append((time.process_time_ns() - cpu_ns) / 1e6 / done)
        if done != frames:
            sys.exit(f"{done} of {frames} frames came out")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", nargs="?", type=Path)
    parser.add_argument("-m", "--model", default=DEFAULT_MODEL)
    parser.add_argument("--backend", nargs="+", default=["openvino", "onnxruntime"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=48, help="per sample")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--live-s", type=float, default=15.0, help="how long to play at real pace")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = arguments.video or _rendered_video(Path(folder) / "virtual.mp4", arguments.frames)
        content = {
            "video": video.name,
            "frame_hw": next(read_frames(video, 1)).shape[:2],
            "threads": arguments.threads,
            "opencv_threads": cv2.getNumThreads(),
            "frames_per_sample": arguments.frames,
            "cases": [
                _measured(name, video, Path(folder), arguments) for name in arguments.backend
            ],
            "outside_inference": _outside_inference(arguments.model, video, arguments),
        }
    print(write_result("stream", content, arguments.out))


def _measured(
    name: str, video: Path, folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Measures all contenders on one backend, in turns."""
    path = find_model(arguments.model)
    with Segmenter(path, backend=name, threads=arguments.threads) as segmenter:
        infer = OPENERS[name](path, segmenter.spec, arguments.threads)
        contenders = {
            "stream": Contender(_streaming(segmenter, video)),
            "loop": Contender(_looping(segmenter.spec, video, infer)),
        }
        if name == "openvino" and importlib.util.find_spec("model_api") is not None:
            rival = ModelApi(path, segmenter.spec, folder, threads=arguments.threads)
            contenders[MODEL_API] = Contender(
                lambda frames: rival.masks(read_frames(video, frames))
            )
        agreement = _agreements(contenders)
        for contender in contenders.values():
            list(contender.masks(_WARM_UP_FRAMES))
        for _ in range(arguments.rounds):
            for contender in contenders.values():
                contender.measure(arguments.frames)
        age = _live(segmenter, video, arguments.live_s)
    case = {
        "backend": name,
        "model": segmenter.spec.name,
        "precision": segmenter.spec.precision,
        "samples_fps": {key: one.fps for key, one in contenders.items()},
        "samples_cpu_ms_per_frame": {key: one.cpu_ms for key, one in contenders.items()},
        "fps": {key: percentiles(one.fps) for key, one in contenders.items()},
        "cpu_ms_per_frame": {key: percentiles(one.cpu_ms) for key, one in contenders.items()},
        "ratio_of_medians": _ratios(contenders),
        "agreement_with_stream": agreement,
        "live": age,
    }
    _print(case)
    return case


def _streaming(segmenter: Segmenter, video: Path) -> Callable[[int], Iterator[Mask]]:
    def masks(frames: int) -> Iterator[Mask]:
        with open_source(video) as source:
            some = (frame.image for frame in islice(source, frames))
            with segmenter.stream(some) as stream:
                for result in stream:
                    yield result.mask

    return masks


def _looping(spec: ModelSpec, video: Path, infer: Infer) -> Callable[[int], Iterator[Mask]]:
    return lambda frames: (plain_mask(frame, spec, infer) for frame in read_frames(video, frames))


def _agreements(contenders: dict[str, Contender]) -> dict[str, float]:
    """Returns the share of pixels on which each contender agrees with the stream."""
    first = {key: list(one.masks(_AGREEMENT_FRAMES)) for key, one in contenders.items()}
    found = {
        key: float(np.mean(np.stack(masks) == np.stack(first["stream"])))
        for key, masks in first.items()
        if key != "stream"
    }
    for key, share in found.items():
        if share < _LEAST_AGREEMENT[key]:
            sys.exit(f"stream and {key} agree on {share:.2%} of the pixels only")
    return found


def _ratios(contenders: dict[str, Contender]) -> dict[str, float]:
    ours = np.median(contenders["stream"].fps)
    return {
        key: float(ours / np.median(one.fps)) for key, one in contenders.items() if key != "stream"
    }


def _live(segmenter: Segmenter, video: Path, seconds: float) -> dict[str, Any]:
    """Plays the video at its own pace and returns how old results are when handed out."""
    stop_ns = time.monotonic_ns() + round(seconds * 1e9)
    ages_ms = []
    with segmenter.stream(f"realtime:{video}", policy="latest") as stream:
        for result in stream:
            ages_ms.append(result.age_ms)
            if time.monotonic_ns() > stop_ns:
                stream.stop()
        stats = stream.stats()
    return {
        "policy": "latest",
        "captured": stats.captured,
        "delivered": stats.delivered,
        "given_up": stats.dropped + stats.superseded,
        "samples_age_ms": ages_ms,
        "age_ms": percentiles(ages_ms),
    }


def _outside_inference(
    model: str, video: Path, arguments: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Returns the processor time per frame of stream and loop with a network that costs nothing."""
    spec, logits = first_logits(model, next(read_frames(video, 1)))
    with Segmenter.from_backend(Replay(spec, logits)) as segmenter:
        contenders = {
            "stream": Contender(_streaming(segmenter, video)),
            "loop": Contender(_looping(spec, video, lambda images: logits[: len(images)])),
        }
        for _ in range(arguments.rounds):
            for contender in contenders.values():
                contender.measure(arguments.frames)
    for key, one in contenders.items():
        print(f"outside inference: {key:6} {np.median(one.cpu_ms):6.2f} ms of processor a frame")
    return {
        key: {"samples_cpu_ms": one.cpu_ms, "cpu_ms": percentiles(one.cpu_ms)}
        for key, one in contenders.items()
    }


def _print(case: dict[str, Any]) -> None:
    print(f"{case['backend']}, {case['model']} {case['precision']}:")
    for key, samples in case["samples_fps"].items():
        cpu_ms = np.median(case["samples_cpu_ms_per_frame"][key])
        print(f"  {key:10} {np.median(samples):6.2f} fps, {cpu_ms:7.1f} ms of processor a frame")
    for key, ratio in case["ratio_of_medians"].items():
        share = case["agreement_with_stream"][key]
        print(f"  stream is {ratio:.2f}x {key}; masks agree on {share:.3%}")
    live, age = case["live"], case["live"]["age_ms"]
    print(
        f"  live: {live['delivered']} of {live['captured']} frames, age p50 {age['p50']:.0f} ms, "
        f"p99 {age['p99']:.0f} ms"
    )


def _rendered_video(path: Path, frames: int) -> Path:
    """Renders a virtual flight at 1280 x 720."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (1280, 720))
    with open_source(f"virtual:seed=1,frames={frames},size=1280x720") as source:
        images: Iterator[Image] = (frame.image for frame in source)
        for image in images:
            writer.write(image)
    writer.release()
    return path


if __name__ == "__main__":
    main()
