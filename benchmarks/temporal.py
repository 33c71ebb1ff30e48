"""Whether smoothing makes masks steadier, at what accuracy and at what cost.

Usage: python benchmarks/temporal.py [CLIPS] [--seeds 1 2 3 4] [--frames 40] [--pictures FOLDER]

Virtual flights with sensor noise have exact truth and motion. "skipping" takes every third frame,
as a stream under the policy "latest" does on a slow machine; "movers" lays pictures over the ground
that move on their own, the worst case for a smoother. CLIPS is a folder of real video (by default
one beside the checkout): of the flyover the motion is known, of the others it is the registered
one, and pairs without one are left out. The constants were chosen on the flight of seed 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from _record import percentiles, write_result
from numpy.typing import NDArray

from cclseg import Segmenter
from cclseg.metrics import ConfusionMatrix, TemporalConsistency
from cclseg.registration import register
from cclseg.virtual import VirtualFlight

if TYPE_CHECKING:
    from cclseg.frame import Image, Mask

Motion = NDArray[np.float64]

_CLIPS = Path(__file__).parents[2] / "shared" / "data" / "video"
_MODES = ("off", "smooth")
_SKIP = 3
_MOVERS, _MOVER_PX, _MOVER_SPEED_PX = 8, 72, 12.0
# How long a mover's place is watched: what it leaves behind shows as much as what it covers.
_TRAIL_FRAMES = 3


@dataclass(frozen=True)
class Shot:
    """One frame with what is known of it.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        motion: From its pixels to those of the frame before, None where that is not known.
        label: (H, W) true class ids.
        trail: (H, W) bool, where something moved on its own lately.
    """

    image: Image
    motion: Motion | None
    label: Mask | None = None
    trail: NDArray[np.bool_] | None = None


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="?", type=Path, default=_CLIPS)
    parser.add_argument("--model", default="ccl-lite0")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--frames", type=int, default=40, help="of each flight and clip")
    parser.add_argument("--pictures", type=Path, help="folder for frames, truth and masks")
    parser.add_argument("-o", "--out", type=Path, help="result file")
    arguments = parser.parse_args()
    cv2.setNumThreads(arguments.threads)
    cases = []
    for name, shots in _cases(arguments):
        if arguments.pictures is not None:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
        cases.append({"case": name} | _measured(name, shots, arguments))
        _print(cases[-1])
    content = {
        "model": arguments.model,
        "backend": arguments.backend,
        "threads": arguments.threads,
        "chosen_on_seed": 1,
        "cases": cases,
    }
    print(write_result("temporal", content, arguments.out))


def _cases(arguments: argparse.Namespace) -> Iterator[tuple[str, list[Shot]]]:
    frames, strangers = arguments.frames, _flight(97, 8)
    for seed in arguments.seeds:
        flight = _flight(seed, frames)
        yield f"flight {seed}", flight
        yield f"flight {seed} skipping", _skipping(flight)
        yield f"flight {seed} movers", _with_movers(flight, strangers, seed)
    if not arguments.clips.is_dir():
        print(f"temporal: no real clips, there is no folder {arguments.clips}")
        return
    yield (
        "uav_settlement 720p",
        _registered(_video(arguments.clips / "uav_settlement_1280x720_10fps.mp4", frames)),
    )
    yield "flyover 640x480", _flyover(arguments.clips, frames)
    photos = sorted((arguments.clips / "frames_brighton_beach").glob("*.jpg"))[:frames]
    yield (
        "brighton_beach 1000x562",
        _registered(
            [
                cv2.resize(cv2.imread(str(p)), (1000, 562), interpolation=cv2.INTER_AREA)
                for p in photos
            ]
        ),
    )


def _measured(name: str, shots: list[Shot], arguments: argparse.Namespace) -> dict[str, Any]:
    """Segments the frames with and without smoothing."""
    masks, times_ms = {}, {}
    for mode in _MODES:
        with Segmenter(
            arguments.model,
            backend=arguments.backend,
            threads=arguments.threads,
            temporal=mode,
        ) as segmenter:
            outs = [segmenter(shot.image) for shot in shots]
        masks[mode] = [out.mask for out in outs]
        times_ms[mode] = [out.timing for out in outs]
    if arguments.pictures is not None:
        _draw(arguments.pictures, name, shots, masks, segmenter.spec.palette)
    smoothing_ms = [timing["temporal"] for timing in times_ms["smooth"]]
    return {
        "frames": len(shots),
        "size_wh": shots[0].image.shape[1::-1],
        **{mode: _figures(shots, masks[mode], segmenter.spec.num_classes) for mode in _MODES},
        "samples_ms": {
            "temporal": smoothing_ms,
            "whole frame": [sum(timing.values()) for timing in times_ms["smooth"]],
        },
        "temporal_ms": percentiles(smoothing_ms[1:]),
    }


def _figures(shots: list[Shot], masks: list[Mask], num_classes: int) -> dict[str, Any]:
    steadiness, matrix = TemporalConsistency(num_classes), ConfusionMatrix(num_classes)
    trail_hits: list[NDArray[np.bool_]] = []
    for index, (shot, mask) in enumerate(zip(shots, masks, strict=True)):
        if shot.label is not None:
            matrix.update(mask, shot.label)
            if shot.trail is not None:
                trail_hits.append((mask == shot.label)[shot.trail])
        if index and shot.motion is not None:
            before = shots[index - 1].label
            labels = None if shot.label is None or before is None else (shot.label, before)
            steadiness.update(mask, masks[index - 1], shot.motion, labels=labels)
    figures: dict[str, Any] = steadiness.report()
    if matrix.images:
        figures |= {"miou": matrix.miou, "accuracy": matrix.accuracy}
    if trail_hits:
        figures["trail_accuracy"] = float(np.concatenate(trail_hits).mean())
    return figures


def _flight(seed: int, frames: int) -> list[Shot]:
    flight = VirtualFlight(seed, frames=frames)
    return [
        Shot(frame.image, flight.motion(frame.index) if frame.index else None, frame.mask)
        for frame in flight
    ]


def _skipping(shots: list[Shot]) -> list[Shot]:
    kept = [shots[0]]
    for first in range(_SKIP, len(shots), _SKIP):
        motion = np.eye(3)
        for shot in shots[first - _SKIP + 1 : first + 1]:
            assert shot.motion is not None
            motion = motion @ shot.motion
        kept.append(replace(shots[first], motion=motion))
    return kept


def _with_movers(shots: list[Shot], strangers: list[Shot], seed: int) -> list[Shot]:
    """Lays patches of another flight over this one, each on a way of its own."""
    rng = np.random.default_rng(seed)
    changed = [
        Shot(s.image.copy(), s.motion, s.label.copy(), np.zeros(s.label.shape, bool))  # type: ignore[union-attr]
        for s in shots
    ]
    room = np.array(shots[0].image.shape[:2]) - _MOVER_PX
    for _ in range(_MOVERS):
        stranger = strangers[rng.integers(len(strangers))]
        patch = _square(rng.integers(0, room))
        start, speed = rng.uniform(0, room), rng.uniform(-_MOVER_SPEED_PX, _MOVER_SPEED_PX, 2)
        for index in range(len(changed)):
            # Back and forth between the frame's edges.
            place = np.abs((start + speed * index + room) % (2 * room) - room).astype(int)
            here = _square(place)
            changed[index].image[here] = stranger.image[patch]
            changed[index].label[here] = stranger.label[patch]  # type: ignore[index]
            for shot in changed[index : index + _TRAIL_FRAMES]:
                shot.trail[here] = True  # type: ignore[index]
    return changed


def _square(place: NDArray[np.int64]) -> tuple[slice, slice]:
    return slice(place[0], place[0] + _MOVER_PX), slice(place[1], place[1] + _MOVER_PX)


def _video(path: Path, frames: int) -> list[Image]:
    video = cv2.VideoCapture(str(path))
    return [image for _ in range(frames) for read, image in (video.read(),) if read]


def _registered(images: list[Image]) -> list[Shot]:
    """Frames whose motion nobody has written down."""
    grey = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images]
    factor = -(-max(grey[0].shape) // 640)
    size_wh = (grey[0].shape[1] // factor, grey[0].shape[0] // factor)
    small = [cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA) for image in grey]
    shots = [Shot(images[0], None)]
    for before, now, image in zip(small, small[1:], images[1:], strict=False):
        motion = register(before, now)
        shots.append(Shot(image, None if motion is None else _enlarged(motion, factor)))
    return shots


def _enlarged(motion: Motion, factor: int) -> Motion:
    """From pixels of images reduced by a factor to those of the images themselves."""
    shift = (factor - 1) / 2
    to_full = np.array([[factor, 0, shift], [0, factor, shift], [0, 0, 1]])
    return np.asarray(to_full @ motion @ np.linalg.inv(to_full))


def _flyover(clips: Path, frames: int) -> list[Shot]:
    rows = np.loadtxt(clips / "flyover_virtual_poses.csv", delimiter=",", skiprows=1)
    to_frame = [np.vstack([row.reshape(2, 3), [0, 0, 1]]) for row in rows[:, 1:]]
    images = _video(clips / "flyover_virtual_640x480_25fps.mp4", frames)
    motions = [a @ np.linalg.inv(b) for a, b in pairwise(to_frame)]
    return [Shot(image, m) for image, m in zip(images, [None, *motions], strict=False)]


def _draw(
    folder: Path,
    name: str,
    shots: list[Shot],
    masks: dict[str, list[Mask]],
    palette: tuple[tuple[int, int, int], ...],
) -> None:
    """Writes three consecutive frames, each with its truth and its masks; wrong pixels are dark."""
    colours = np.asarray([*palette, *[(0, 0, 0)] * (256 - len(palette))], np.uint8)[:, ::-1]
    rows = []
    for index in range(len(shots) // 2, min(len(shots), len(shots) // 2 + 3)):
        shot, row = shots[index], [shots[index].image]
        if shot.label is not None:
            row.append(colours[shot.label])
        for mode in _MODES:
            picture = colours[masks[mode][index]]
            if shot.label is not None:
                picture[masks[mode][index] != shot.label] //= 4
            row.append(picture)
        rows.append(np.hstack(row))
    cv2.imwrite(str(folder / f"{name.replace(' ', '_')}.png"), np.vstack(rows))


def _print(case: dict[str, Any]) -> None:
    parts = [f"{case['case']:26}"]
    for key in ("flicker", "consistency_miou", "miou", "accuracy", "trail_accuracy"):
        if key in case["off"]:
            parts.append(f"{key} {case['off'][key]:.4f} -> {case['smooth'][key]:.4f}")
    parts.append(f"{case['temporal_ms']['p50']:.1f} ms")
    print("  ".join(parts), flush=True)


if __name__ == "__main__":
    main()
