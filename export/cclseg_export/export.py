"""The export job: a checkpoint or a foreign ONNX file in, measured model files out.

Everything is made in a hidden folder inside the target and measured there; only then do files get
their names. What is interrupted or fails leaves nothing behind.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cclseg.files import file_sha256, write_bytes, write_json
from cclseg.segmenter import Segmenter

from .gallery import Gallery
from .gate import Gate, Verdict
from .half import to_half
from .int8 import Int8Writer, calibrated_writer, saved_file, spread_evenly
from .layer_search import SEARCH_OVERLAP, LayerChoice, LayerSearch
from .material import Material, checked_material
from .origin import Origin, load_origin, load_reference
from .parity_page import parity_page
from .parity_report import parity_report, parity_summary
from .rival import beaten_by, has_rival, write_rival
from .staging import publish, staging_folder
from .to_onnx import attach_spec, save_model

if TYPE_CHECKING:
    import onnx

    from cclseg.frame import FloatArray

    from .options import ExportOptions
    from .parity import Compared
    from .targets import Target

logger = logging.getLogger(__name__)

_TILES_TO_AGREE_ON = 2
"""Tiles on which libraries must compute an INT8 file alike; each costs seconds."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); total is 0 where it is unknown."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What the job wrote.

    Attributes:
        files: The model files; names of rejected ones end in ``.rejected``.
        report: Content of ``parity.json``.
    """

    files: tuple[Path, ...]
    report: dict[str, Any]

    @property
    def rejected(self) -> str | None:
        """Why files were rejected, or None."""
        reasons = [file["rejected"] for file in self.report["files"] if file["rejected"]]
        return "; ".join(reasons) or None


def export_model(
    source: Path,
    out: Path,
    options: ExportOptions,
    *,
    on_progress: Progress = lambda stage, done, total: None,
) -> ExportResult:
    """Writes ``NAME.onnx`` and what was asked for beside it, ``parity.json`` and ``parity.html``.

    A file outside the budget is called ``*.rejected``.

    Args:
        source: A checkpoint (.pt), or an ONNX file of another program.
        out: Folder for the files.
        options: What to write and what to accept.
        on_progress: Sees how far the job is.

    Raises:
        BackendError: The source is damaged, or ONNX does not compute what torch does.
        InputError: Calibration images or data do not fit.
        SinkError: The files cannot be written.
    """
    origin = load_origin(source, spec=options.spec, license=options.license)
    reference = load_reference(options.reference, origin) if options.reference else None
    job = _Job(origin, reference, options, checked_material(origin.spec, options), on_progress)
    with staging_folder(out) as staging:
        job.write_float(staging)
        if job.material.calibration:
            job.write_int8(staging)
        job.judge()
        report = job.finish(staging)
        files = publish(staging, out, job.verdicts)
    return ExportResult(files, report)


@dataclass(slots=True)
class _Job:
    """One export, step by step.

    Attributes:
        origin: Where the files come from.
        reference: What they are compared with, None for the origin.
        options: What was asked for.
        material: What it calibrates and measures with.
        on_progress: Sees how far the job is.
        models: What the files hold, by file name; the fp32 one first.
        verdicts: One per file, in the same order.
        rival: What a network trained with quantisation has to beat; not handed over.
    """

    origin: Origin
    reference: Origin | None
    options: ExportOptions
    material: Material
    on_progress: Progress
    models: dict[str, onnx.ModelProto] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    rival: Verdict | None = None
    choice: LayerChoice | None = None
    gallery: Gallery | None = None
    conversion_error: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def write_float(self, staging: Path) -> None:
        """Writes the fp32 file, and the fp16 file if it was asked for."""
        with self._step("convert"):
            model = self.origin.to_fp32(keep_operator=self.options.keep_operator)
            self.conversion_error = self.origin.conversion_error(model, self._probe())
            self._add(staging / f"{self.origin.spec.name}.onnx", model, precision="fp32")
            if self.options.fp16:
                half = to_half(model)
                attach_spec(half, dataclasses.replace(self.origin.spec, precision="fp16"))
                self._add(staging / f"{self.origin.spec.name}.fp16.onnx", half, precision="fp16")

    def write_int8(self, staging: Path) -> None:
        """Calibrates, chooses the layers that stay in floating point, and writes every target."""
        options = self.options
        fp32 = next(iter(self.models.values()))
        with self._step("calibrate"):
            writer = calibrated_writer(fp32, self.origin.spec, self.material, options)
        kept = options.keep_float
        if options.auto:
            with self._step("search"):
                self.choice = self._chosen_layers(writer, staging)
            kept = self.choice.search.best.kept
        with self._step("quantise"):
            for target in options.targets:
                model = writer.write(target, kept)
                path = staging / f"{self.origin.spec.name}.{_infix(target)}int8.onnx"
                self._add(path, model, precision="int8", target=target, kept_float=kept)
        if has_rival(self.origin, self.reference):
            assert self.reference is not None, "there is no rival without a reference"
            with self._step("rival"):
                file = write_rival(
                    self.reference, self.material, options, kept=kept, folder=staging
                )
            self.rival = Verdict(file)

    def judge(self) -> None:
        """Measures every file beside its origin."""
        dataset = self.material.dataset
        if dataset is None:
            return
        files = [verdict.file for verdict in self.verdicts]
        judged = next((f for f in files if f.precision == "int8"), files[-1])
        before = files[: files.index(judged)]
        self.gallery = Gallery(
            self.origin.spec, candidate=sum(len(file.backends) for file in before)
        )
        gate = Gate(
            dataset=dataset,
            split=self.options.split,
            budget_points=self.options.budget_points,
            threads=self.options.threads,
            tiles=self._tiles_to_agree_on(),
        )
        judged_against = self.reference or self.origin
        with (
            self._step("measure"),
            judged_against.open_reference(threads=self.options.threads) as reference,
        ):
            rivals = [self.rival.file] if self.rival else []
            verdicts = gate.judge(reference, [*files, *rivals], on_image=self._on_image)
        self.verdicts = verdicts[: len(files)]
        if self.rival:
            self.rival = verdicts[-1]
            self._reject_the_beaten(self.rival)

    def _reject_the_beaten(self, rival: Verdict) -> None:
        assert self.reference is not None, "there is no rival without a reference"
        for verdict in self.verdicts:
            if verdict.file.precision == "int8" and not verdict.rejected:
                verdict.rejected = beaten_by(verdict, rival, self.reference)

    def finish(self, staging: Path) -> dict[str, Any]:
        """Writes the reports, and into each model file what was measured on it."""
        report = parity_report(
            self.origin,
            self.options,
            conversion_error=self.conversion_error,
            calibration=self.material.calibration,
            dataset=self.material.dataset,
            choice=self.choice,
            reference=self.reference,
            verdicts=self.verdicts,
            rival=self.rival,
            seconds=self.seconds,
        )
        for verdict, entry, model in zip(
            self.verdicts, report["files"], self.models.values(), strict=True
        ):
            spec = dataclasses.replace(
                self.origin.spec,
                precision=verdict.file.precision,
                parity=parity_summary(report, entry),
            )
            attach_spec(model, spec)
            save_model(model, verdict.file.path)
            entry["bytes"] = verdict.file.path.stat().st_size
            entry["sha256"] = file_sha256(verdict.file.path)
        write_json(staging / "parity.json", report)
        page = parity_page(report, self.origin.spec, self.gallery)
        write_bytes(staging / "parity.html", page.encode())
        return report

    def _probe(self) -> FloatArray:
        """Returns a network input for the check of the conversion: a real one where there is."""
        if self.material.calibration:
            return self.material.calibration.tiles[0]
        spec = self.origin.spec
        shape = (1, len(spec.bands), *spec.input_hw)
        return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)

    def _tiles_to_agree_on(self) -> list[FloatArray]:
        calibration = self.material.calibration
        tiles = self.material.unseen or (calibration.tiles if calibration else ())
        return spread_evenly(tiles, _TILES_TO_AGREE_ON)

    def _chosen_layers(self, writer: Int8Writer, staging: Path) -> LayerChoice:
        options = self.options
        assert self.material.dataset is not None, "INT8 always comes with labelled images"
        search = LayerSearch(
            writer=writer,
            open_reference=self._open_search_reference,
            targets=options.targets,
            dataset=self.material.dataset,
            split=options.search_split,
            budget_points=options.budget_points,
            threads=options.threads,
            workspace=staging,
            on_progress=self.on_progress,
        )
        return search.run(always=options.keep_float, seconds=60 * options.search_minutes)

    def _open_search_reference(self) -> Segmenter:
        """Opens what a search compares with: the fp32 file does what the origin does, faster."""
        threads = self.options.threads
        if self.reference:
            return self.reference.open_reference(threads=threads, overlap=SEARCH_OVERLAP)
        path = self.verdicts[0].file.path
        return Segmenter(path, backend="onnxruntime", overlap=SEARCH_OVERLAP, threads=threads)

    def _add(
        self,
        path: Path,
        model: onnx.ModelProto,
        *,
        precision: str,
        target: Target = "cpu",
        kept_float: tuple[str, ...] = (),
    ) -> None:
        file = saved_file(path, model, precision=precision, target=target, kept_float=kept_float)
        self.models[path.name] = model
        self.verdicts.append(Verdict(file))

    def _on_image(self, compared: Compared) -> None:
        assert self.gallery is not None, "made before the first image"
        self.gallery.add(compared)
        self.on_progress("measure", compared.done, compared.total)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Announces a step and notes how long it takes."""
        self.on_progress(name, 0, 0)
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)


def _infix(target: Target) -> str:
    """The file for CPUs is the plain one; others say what they are for."""
    return "" if target == "cpu" else f"{target}."
