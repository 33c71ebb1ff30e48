"""The demo: a virtual flight, segmented live and measured against its exact truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import __version__, report
from .errors import InputError
from .files import make_folder, write_bytes
from .metrics import ConfusionMatrix
from .panels import coloured, marked, shrunk
from .profiling import StageTimer
from .sinks import open_sink
from .sources.virtual import as_frame
from .virtual import CLASS_NAMES, PALETTE

if TYPE_CHECKING:
    from .frame import Image, Mask
    from .result import Segmentation
    from .segmenter import Segmenter
    from .virtual import VirtualFlight, VirtualFrame

OVERLAY_NAME, MASKS_NAME, REPORT_NAME = "overlay.mp4", "masks", "report.html"

# Frames of a flight lie 0.4 s apart; at ten a second the video shows it four times as fast.
_VIDEO_FPS = 10.0
_SHEET_ROWS = 5
_PANEL_PX = 420
_WRONG_BGR = (66, 64, 244)
_OWN_STAGES = ("render", "score", "write")


@dataclass(slots=True)
class DemoResult:
    """What a demo measured.

    Attributes:
        matrix: Confusion matrix over all frames.
        frame_mious: Mean IoU of each frame by itself.
        live_mious: Mean IoU over all frames up to each one.
        samples_ms: Milliseconds per stage and frame; "render", "score" and "write" are the
            demo's own, the others the segmenter's.
        panels: Rows of (frame, truth, prediction, error) images with the frame's index.
    """

    matrix: ConfusionMatrix
    frame_mious: list[float] = field(default_factory=list)
    live_mious: list[float] = field(default_factory=list)
    samples_ms: dict[str, list[float]] = field(default_factory=dict)
    panels: list[tuple[int, tuple[Image, Image, Image, Image]]] = field(default_factory=list)

    @property
    def segment_ms(self) -> list[float]:
        """Milliseconds of segmentation per frame, without rendering, scoring and writing."""
        stages = [ms for name, ms in self.samples_ms.items() if name not in _OWN_STAGES]
        return [float(sum(values)) for values in zip(*stages, strict=True)]

    @property
    def fps(self) -> float:
        """Frames segmented per second; the first one, which warms up, counts only if alone."""
        times = self.segment_ms[1:] or self.segment_ms
        return 1000 * len(times) / sum(times)


def run_demo(
    segmenter: Segmenter,
    flight: VirtualFlight,
    folder: Path,
    *,
    on_frame: Callable[[int, DemoResult], None] | None = None,
) -> DemoResult:
    """Flies, segments, scores, and writes overlay video, masks and report.

    Args:
        segmenter: The model; its classes must be those of virtual scenes.
        flight: Where to fly.
        folder: Gets ``overlay.mp4``, ``masks/`` and ``report.html``; made if missing.
        on_frame: Called after each frame with (frames done, result so far).

    Returns:
        The figures of all frames.

    Raises:
        InputError: The model has other classes.
        SinkError: The folder cannot be written to.
    """
    _check_classes(segmenter)
    make_folder(folder)
    result = DemoResult(ConfusionMatrix(len(CLASS_NAMES)))
    flight.world  # noqa: B018 - renders the scene now, so that no frame is charged for it
    shown = set(np.linspace(0, flight.frames - 1, min(_SHEET_ROWS, flight.frames)).round())
    with (
        open_sink(folder / OVERLAY_NAME, fps=_VIDEO_FPS) as overlays,
        open_sink(folder / MASKS_NAME, kind="masks") as masks,
    ):
        for index in range(flight.frames):
            timer = StageTimer()
            with timer.stage("render"):
                frame = flight.frame(index)
            segmented = segmenter(frame.image)
            with timer.stage("score"):
                _score(result, segmented.mask, frame)
            with timer.stage("write"):
                overlays.write(as_frame(frame), segmented)
                masks.write(as_frame(frame), segmented)
            if index in shown:
                result.panels.append((index, _panels(frame, segmented)))
            for name, ms in (segmented.timing | timer.ms).items():
                result.samples_ms.setdefault(name, []).append(ms)
            if on_frame:
                on_frame(index + 1, result)
    write_bytes(folder / REPORT_NAME, demo_page(result, segmenter, flight).encode())
    return result


def figures(result: DemoResult, segmenter: Segmenter, flight: VirtualFlight) -> dict[str, Any]:
    """Returns what ``cclseg demo --json`` writes: accuracy, rates, raw samples, settings."""
    return {
        **result.matrix.report(CLASS_NAMES),
        "fps": result.fps,
        "latency_ms": {
            name: _percentiles(values)
            for name, values in {**result.samples_ms, "segment": result.segment_ms}.items()
        },
        "frame_miou": [_or_none(value) for value in result.frame_mious],
        "samples_ms": result.samples_ms,
        "model": segmenter.spec.name,
        "precision": segmenter.spec.precision,
        "backend": segmenter.backend,
        "flight": {
            "seed": flight.seed,
            "frames": flight.frames,
            "frame_hw": list(flight.frame_hw),
            "gsd_m": flight.gsd_m,
            "style": asdict(flight.world.style),
        },
        "version": __version__,
    }


def demo_page(result: DemoResult, segmenter: Segmenter, flight: VirtualFlight) -> str:
    """Builds the report as one HTML document."""
    height, width = flight.frame_hw
    spec, style = segmenter.spec, flight.world.style
    mean_ms = {name: float(np.mean(values)) for name, values in result.samples_ms.items()}
    model_ms = {name: ms for name, ms in mean_ms.items() if name not in _OWN_STAGES}
    own_ms = ", ".join(f"{name} {mean_ms[name]:.1f} ms" for name in _OWN_STAGES)
    return report.page(
        f"Virtual flight {flight.seed}",
        report.element("h1", f"Virtual flight {flight.seed}"),
        report.element("p", _story(flight), class_="lead"),
        report.tiles(
            {
                "mean IoU, all frames": _figure(result.matrix.miou),
                "pixels right": f"{100 * result.matrix.accuracy:.1f} %",
                "frames segmented per second": f"{result.fps:.1f}",
                f"frames of {width} × {height} px": f"{flight.frames}",
            }
        ),
        report.section(
            "What it saw",
            report.legend(CLASS_NAMES, PALETTE),
            report.contact_sheet(
                ("frame", "truth", "prediction", "wrong pixels"), _sheet_rows(result)
            ),
        ),
        report.section("Accuracy by class", _class_table(result.matrix)),
        report.section(
            "Accuracy along the flight",
            report.line_plot(
                (
                    report.Series("mean IoU of all frames so far", result.live_mious),
                    report.Series("of each frame", result.frame_mious),
                ),
                x_label="seconds of flight",
                x_step=flight.interval_s,
            ),
        ),
        report.section(
            "Where the time goes",
            report.stack_bar(model_ms, unit="ms"),
            report.element("p", f"Mean per frame. The demo's own work beside it: {own_ms}."),
        ),
        report.section(
            "Model and scene",
            report.facts(
                {
                    "model": f"{spec.name} {spec.version}, {spec.precision}",
                    "what it is": spec.description or "no description",
                    "trained on": ", ".join(spec.trained_on) or "not stated",
                    "licence": spec.license or "not stated",
                    "tile": f"{spec.input_hw[1]} × {spec.input_hw[0]} px, run by "
                    f"{segmenter.backend} on {segmenter.device}",
                    "scene": f"{style.climate}, {style.season}, {style.road_pattern} streets, "
                    f"water: {style.water}, built up {style.urban_density:.0%}",
                    "sun": f"{style.sun_elevation_deg:.0f}° high, from "
                    f"{style.sun_azimuth_deg:.0f}°; haze {style.haze:.0%}",
                    "made by": f"cclseg {__version__}, seed {flight.seed}",
                }
            ),
        ),
        report.element(
            "footer",
            "The scene is rendered, so its truth is exact to the pixel and the same seed gives the "
            "same flight. Figures on rendered scenes do not replace figures on photographs.",
        ),
    )


def _check_classes(segmenter: Segmenter) -> None:
    if segmenter.spec.class_names != CLASS_NAMES:
        raise InputError(
            f"the model '{segmenter.spec.name}' knows the classes "
            f"{', '.join(segmenter.spec.class_names)}; a virtual flight shows "
            f"{', '.join(CLASS_NAMES)}; choose a model with these, in this order"
        )


def _score(result: DemoResult, mask: Mask, frame: VirtualFrame) -> None:
    alone = ConfusionMatrix(len(CLASS_NAMES))
    alone.update(mask, frame.mask)
    result.matrix.update(mask, frame.mask)
    result.frame_mious.append(alone.miou)
    result.live_mious.append(result.matrix.miou)


def _panels(frame: VirtualFrame, segmented: Segmentation) -> tuple[Image, Image, Image, Image]:
    """The frame, its truth, the prediction, and the pixels between them that differ."""
    wrong = segmented.mask != frame.mask
    return (
        shrunk(frame.image, _PANEL_PX),
        shrunk(coloured(frame.mask, PALETTE), _PANEL_PX, classes=True),
        shrunk(coloured(segmented.mask, PALETTE), _PANEL_PX, classes=True),
        shrunk(marked(frame.image, [(wrong, _WRONG_BGR)]), _PANEL_PX),
    )


def _sheet_rows(result: DemoResult) -> list[tuple[report.Html, ...]]:
    rows: list[tuple[report.Html, ...]] = []
    for index, (picture, truth, prediction, wrong) in result.panels:
        score = f"mIoU {_figure(result.frame_mious[index])}"
        rows.append(
            (
                report.picture(picture, f"frame {index}", caption=f"frame {index}"),
                report.picture(truth, f"truth of frame {index}", lossless=True, caption="truth"),
                report.picture(
                    prediction, f"prediction of frame {index}", lossless=True, caption=score
                ),
                report.picture(wrong, f"wrong pixels of frame {index} in red", caption="wrong"),
            )
        )
    return rows


def _class_table(matrix: ConfusionMatrix) -> report.Html:
    per_class = matrix.report(CLASS_NAMES)["per_class"]
    total = max(1, sum(row["pixels"] for row in per_class.values()))
    rows: list[tuple[report.Content, ...]] = [
        (
            report.swatch(name, rgb),
            report.share_bar(row["iou"]),
            _figure(row["precision"]),
            _figure(row["recall"]),
            f"{100 * row['pixels'] / total:.1f} %",
        )
        for (name, row), rgb in zip(per_class.items(), PALETTE, strict=True)
    ]
    return report.table(
        ("class", "IoU", "precision", "recall", "share of the ground"),
        rows,
        total=("mean", report.share_bar(_or_none(matrix.miou)), "", "", ""),
    )


def _story(flight: VirtualFlight) -> str:
    height, width = flight.frame_hw
    kilometres = (flight.frames - 1) * flight.step_m / 1000
    altitude = np.mean([pose.altitude_m for pose in flight.poses])
    return (
        f"{kilometres:.1f} km over a rendered {flight.world.style.climate} scene at "
        f"{altitude:.0f} m, {width * flight.gsd_m:.0f} × {height * flight.gsd_m:.0f} m in view, "
        f"{flight.gsd_m:.2f} m per pixel. Every frame comes with its exact truth, so the accuracy "
        "below is measured while flying."
    )


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    p50, p90, p99 = (float(v) for v in np.percentile(values, (50, 90, 99)))
    return {"p50": p50, "p90": p90, "p99": p99, "mean": float(np.mean(values))}


def _figure(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.3f}"


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
