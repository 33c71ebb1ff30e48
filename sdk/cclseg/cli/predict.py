"""The verb ``cclseg predict``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ..errors import InputError
from ..models import DEFAULT_MODEL
from .app import DONE, FAILED, INTERRUPTED, Settings
from .harvest import harvest_options, with_harvest
from .operation import about, is_served, operation_options, supervised
from .options import STANDARD_OUTPUT, json_option, refine_option, tta_option, write_report
from .position import Positioning, position_options

if TYPE_CHECKING:
    from ..mavlink import TelemetryStats
    from ..pipeline import JobSummary
    from ..refinement import Refine
    from ..sinks import Sink
    from ..sinks.geo import GeoOptions
    from ..sources import Source
    from ..stream import Policy
    from ..symmetries import Tta

_SHOWN_FAILURES = 20


@click.command()
@click.argument("source")
@click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, help="Name or model file.")
@click.option(
    "-o",
    "--out",
    help="Folder, .png, .jpg, .mp4, .jsonl, .geojsonl, rtp://, rtsp:// or zmq: "
    "(default: named after SOURCE).",
)
@click.option("--overlay", is_flag=True, help="Write pictures with coloured classes, not masks.")
@click.option("--backend", default="auto", show_default=True, help="Library that runs the model.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads (default: all processors).")
@click.option("--tile", type=click.IntRange(min=1), help="Side of a tile in pixels.")
@click.option("--overlap", type=click.FloatRange(0, 0.9), help="Share that tiles have in common.")
@click.option(
    "--policy",
    type=click.Choice(["all", "latest", "drop-oldest"]),
    help="Frames that come too fast (default: all of files, the latest of cameras).",
)
@click.option(
    "--temporal",
    type=click.Choice(["off", "smooth"]),
    default="off",
    show_default=True,
    help="Let each result of a moving camera take over what the last one said of the same ground.",
)
@click.option(
    "--budget-ms",
    type=click.FloatRange(min=0, min_open=True),
    help="What a frame may take; the work is cut down to keep 99 of 100 within it.",
)
@tta_option
@refine_option
@operation_options
@harvest_options
@json_option
@position_options
@click.pass_context
def predict(
    ctx: click.Context,
    *,
    positioning: Positioning,
    harvest: int | None,
    harvest_to: Path | None,
    source: str,
    model: str,
    out: str | None,
    overlay: bool,
    backend: str,
    threads: int | None,
    tile: int | None,
    overlap: float | None,
    policy: Policy | None,
    temporal: Literal["off", "smooth"],
    budget_ms: float | None,
    tta: Tta,
    refine: Refine,
    json_path: Path | None,
) -> None:
    """Segment the frames of SOURCE: images, a video, a camera or a stream.

    SOURCE is an image, a folder, a pattern ("flight/*.jpg"), a video, a camera (v4l2://0, csi://0),
    a stream (rtsp://, rtp://, udp://) or a GStreamer pipeline ("gst:videotestsrc").

    The form of OUT says what is written: a folder holds one mask per frame (8-bit class ids, 255
    where there are no data), .png one mask, .mp4 a video with the classes laid over the frames,
    .jsonl a line with the share of each class per frame, .geojsonl a line of GeoJSON with the
    footprint on the ground; rtp:// and rtsp:// send the video to another machine,
    zmq:tcp://127.0.0.1:PORT masks and figures to other processes.
    Frames of any size are cut into overlapping tiles. A frame that fails is named at the end, and
    the exit code is then 1; the others are done.

    Ctrl-C or SIGTERM ends the job in good order: what is on its way is written and the video
    completed. The exit code is then 0 for cameras and streams, which have no other end, and 130
    for files.

    With --serve and without OUT, results go to the page alone.
    """
    from ..pipeline import run_job
    from ..segmenter import Segmenter
    from ..sources import open_source
    from .stopping import stop_on_signals

    with (
        supervised(ctx) as supervisor,
        open_source(source) as opened,
        ExitStack() as stack,
    ):
        with _wrong_usage(ctx):
            frames, telemetry = stack.enter_context(positioning.applied(opened))
            sink = _sink_for(
                frames, out, overlay=overlay, shown=is_served(ctx), geo=positioning.geo
            )
            sink = with_harvest(sink, harvest, harvest_to, source=frames.name)
            segmenter = Segmenter(
                model,
                backend=backend,
                threads=threads,
                tile=tile,
                overlap=overlap,
                temporal=temporal,
                budget_ms=budget_ms,
                tta=tta,
                refine=refine,
            )
        supervisor.describe(about(frames.name, segmenter))
        as_json = ctx.obj.log_json
        with (
            segmenter,
            stop_on_signals(as_json=as_json) as stop,
            _progress(frames, hidden=as_json) as advance,
        ):
            summary = run_job(
                frames, segmenter, sink, policy=policy, progress=advance, stop=stop,
                on_stream=supervisor.watch,
            )  # fmt: skip
        described = {
            "source": source,
            "output": str(sink.target),
            "encoder": sink.encoder,
            "model": segmenter.spec.name,
            "backend": segmenter.backend,
            "precision": segmenter.spec.precision,
            "tta": tta,
            "refine": refine,
            "telemetry": None if telemetry is None else asdict(telemetry.stats()),
        }
    if json_path is not None:
        write_report(described | summary.to_json(), json_path)
    if json_path != STANDARD_OUTPUT:
        _print_summary(summary, sink)
        if telemetry is not None:
            _print_telemetry(telemetry.stats())
    _name_failures(summary, ctx.obj)
    ctx.exit(_exit_code(summary, live=frames.live))


def _exit_code(summary: JobSummary, *, live: bool) -> int:
    if summary.stopped and not live:
        return INTERRUPTED
    return FAILED if summary.failed_count else DONE


@contextmanager
def _wrong_usage(ctx: click.Context) -> Iterator[None]:
    """Turns an argument that the runtime refuses into a usage error."""
    try:
        yield
    except InputError as error:
        raise click.UsageError(str(error), ctx) from error


def _sink_for(
    source: Source, out: str | None, *, overlay: bool, shown: bool, geo: GeoOptions | None
) -> Sink:
    """Opens the sink that the options ask for, before a model is loaded or a frame read."""
    from ..sinks import open_sink

    if out is None and shown:
        return open_sink(page)
    if out is None:
        out = str(_default_out(source, overlay=overlay))
    if Path(out).suffix.lower() in (".png", ".jpg", ".jpeg") and source.total != 1:
        raise InputError(
            f"{out} holds one frame, the source gives {source.total or 'several'}; "
            "give a folder or an .mp4"
        )
    return open_sink(out, kind="overlay" if overlay else None, fps=source.fps, geo=geo)


def page(result: object) -> None:
    """Takes results that are only shown."""


def _default_out(source: Source, *, overlay: bool) -> Path:
    if source.fps is not None or source.live:
        return Path(f"{source.name}_overlay.mp4")
    if source.total == 1:
        return Path(f"{source.name}_overlay.jpg" if overlay else f"{source.name}_mask.png")
    return Path(f"{source.name}_overlay" if overlay else f"{source.name}_masks")


@contextmanager
def _progress(source: Source, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """Shows a bar with the remaining time, on a terminal only."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=hidden or not console.is_terminal) as progress:
        task = progress.add_task(source.name, total=source.total, rate="")

        def advance(frames: int) -> None:
            speed = progress.tasks[0].finished_speed or progress.tasks[0].speed
            progress.update(task, completed=frames, rate=f"{speed:.1f} fps" if speed else "")

        yield advance


def _print_summary(summary: JobSummary, sink: Sink) -> None:
    noun = "frame" if summary.done == 1 else "frames"
    ended = " until it was stopped" if summary.stopped else ""
    encoder = f"{sink.encoder}, " if sink.encoder else ""
    click.echo(f"{summary.done} {noun}{ended} -> {sink.target}  ({encoder}{summary.fps:.1f} fps)")
    if summary.dropped:
        click.echo(f"dropped by the policy: {summary.dropped}")
    if summary.levels.keys() - {"full"}:
        counts = (f"{name} {count}" for name, count in summary.levels.items())
        click.echo(f"frames by level: {', '.join(counts)}")
    if summary.age_ms is not None and summary.dropped:
        ages = (f"{name} {age:.0f}" for name, age in summary.age_ms.items())
        click.echo(f"ms from capture to result: {', '.join(ages)}")
    if summary.done:
        shares = (f"{name} {share:.1%}" for name, share in summary.class_fractions.items())
        click.echo(f"classes: {', '.join(shares)}")
        stages = (f"{stage} {elapsed:.1f}" for stage, elapsed in summary.stage_ms.items())
        click.echo(f"ms per frame: {', '.join(stages)}")


def _print_telemetry(stats: TelemetryStats) -> None:
    click.echo(
        f"positions: {stats.poses} frames with, {stats.without_pose} without; "
        f"{stats.counts.lost} packets and {stats.losses} times the link lost"
    )
    if stats.system is None:
        click.echo("warning: no autopilot was heard on the telemetry", err=True)


def _name_failures(summary: JobSummary, settings: Settings) -> None:
    from ..pipeline import LISTED_FAILURES

    if not summary.failed_count:
        return
    noun = "frame" if summary.failed_count == 1 else "frames"
    if settings.log_json:
        failed = {failure.name: failure.reason for failure in summary.failed[:_SHOWN_FAILURES]}
        settings.tell(f"{summary.failed_count} {noun} failed", level=logging.ERROR, failed=failed)
        return
    click.echo(f"error: {summary.failed_count} {noun} failed:", err=True)
    for failure in summary.failed[:_SHOWN_FAILURES]:
        click.echo(f"  {failure.name}: {failure.reason}", err=True)
    if summary.failed_count > _SHOWN_FAILURES:
        rest = summary.failed_count - _SHOWN_FAILURES
        click.echo(f"  and {rest} more; --json FILE lists up to {LISTED_FAILURES}", err=True)
