"""Campaigns of training: many networks by one recipe, each measured alike and only once.

Every trial (a candidate with one seed) has a folder of its own under the campaign's. Started again,
a campaign takes what is finished from there and resumes what is not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from _tile_latency import measured_in_turns

from cclseg import Segmenter
from cclseg.dataset import open_dataset
from cclseg.errors import InputError
from cclseg.evaluate import evaluate
from cclseg.files import write_json
from cclseg.machine import read_machine
from cclseg_export.int8 import calibrated_writer
from cclseg_export.material import checked_material
from cclseg_export.options import ExportOptions
from cclseg_export.origin import load_origin
from cclseg_export.to_onnx import save_model
from cclseg_trainer.checkpoint import load_checkpoint
from cclseg_trainer.config import TrainConfig
from cclseg_trainer.models import config_to_dict, cost_of
from cclseg_trainer.train import train, validate

if TYPE_CHECKING:
    from cclseg_trainer.models import ModelConfig

DATA = Path(__file__).parents[2] / "shared" / "data" / "dubai"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network and the recipe that it is trained by.

    Attributes:
        name: Unique in its campaign, and fit for the name of a folder.
        network: Its classes and bands are set from the data.
        recipe: Its seed is replaced by that of the trial.
    """

    name: str
    network: ModelConfig
    recipe: TrainConfig


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate, trained once."""

    candidate: Candidate
    seed: int

    def folder(self, campaign: Path) -> Path:
        """Returns where its run lies."""
        return campaign / self.candidate.name / f"seed{self.seed}"


class _Stopwatch:
    """Notes when each validation was reached, in seconds of training."""

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []
        self._trained_s, self._resumed_ns = 0.0, time.perf_counter_ns()

    def on_step(self, step: int, steps: int, loss: float) -> None:
        now_ns = time.perf_counter_ns()
        self._trained_s += (now_ns - self._resumed_ns) / 1e9
        self._resumed_ns = now_ns

    def on_validation(self, step: int, report: dict[str, Any], *, is_best: bool) -> None:
        self.curve.append({"step": step, "trained_s": self._trained_s, "miou": report["miou"]})
        self._resumed_ns = time.perf_counter_ns()


def trials_of(candidates: Sequence[Candidate], seeds: int) -> list[Trial]:
    """Returns all trials, the first seed of every candidate before the second of any."""
    return [Trial(candidate, seed) for seed in range(1, seeds + 1) for candidate in candidates]


def run_trials(
    trials: Sequence[Trial], data: Path, campaign: Path, *, jobs: int, hours: float
) -> Iterator[tuple[Trial, dict[str, Any]]]:
    """Trains and measures; yields each trial with its figures as it is done.

    Args:
        trials: Taken in their order, those finished earlier first.
        data: Dataset folder.
        campaign: Folder of the runs.
        jobs: Trials at a time, each in a process with its share of the processors.
        hours: When they are over no further trial is begun; one always is where none is finished.
    """
    start = time.monotonic()
    waiting = []
    for trial in trials:
        if _figures_path(trial, campaign).exists():
            yield trial, run_trial(trial, data, campaign)
        else:
            waiting.append(trial)
    must_begin = len(waiting) == len(trials)
    pool_of_workers = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(max(1, read_machine().cores // jobs),),
    )
    with pool_of_workers as pool:
        running = {}
        while waiting or running:
            while waiting and len(running) < jobs:
                if not must_begin and time.monotonic() - start >= hours * 3600:
                    waiting.clear()
                    break
                trial = waiting.pop(0)
                running[pool.submit(run_trial, trial, data, campaign)] = trial
                must_begin = False
            if running:
                done = next(as_completed(running))
                yield running.pop(done), done.result()


def _figures_path(trial: Trial, campaign: Path) -> Path:
    """Returns the file that a finished trial leaves."""
    return trial.folder(campaign) / "figures.json"


def _start_worker(threads: int) -> None:
    """Lets this process end when the campaign is killed; its trial is resumed later."""
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run_trial(trial: Trial, data: Path, campaign: Path) -> dict[str, Any]:
    """Trains a candidate in this process, and measures it on val and test.

    Returns:
        Figures, also in ``figures.json`` of the trial's folder: "network", "recipe", "parameters",
        "macs" (of a 512 x 512 image), the reports "val" and "test", and "curve": step, seconds
        and mIoU of each validation, empty where the run was interrupted, whose time is unknown.
    """
    folder = trial.folder(campaign)
    recipe = dataclasses.replace(trial.candidate.recipe, seed=trial.seed)
    target = _figures_path(trial, campaign)
    if target.exists():
        figures: dict[str, Any] = json.loads(target.read_text())
        if figures["recipe"] != json.loads(json.dumps(dataclasses.asdict(recipe))):
            raise InputError(
                f"{target} is of a campaign with another recipe; give another folder: --work"
            )
        return figures
    dataset = open_dataset(data)
    was_interrupted = (folder / "last.pt").exists()
    stopwatch = _Stopwatch()
    result = train(dataset, trial.candidate.network, recipe, folder, progress=stopwatch)
    checkpoint = load_checkpoint(result.best)
    network = checkpoint.build()
    cost = cost_of(network)
    figures = {
        "network": config_to_dict(checkpoint.model_config),
        "recipe": dataclasses.asdict(recipe),
        "parameters": cost.deployed_parameters,
        "macs": cost.macs,
        "curve": [] if was_interrupted else stopwatch.curve,
        "val": result.report,
        "test": validate(network, checkpoint.spec, dataset, "test"),
    }
    write_json(target, figures)
    return figures


def quantized(folder: Path, data: Path, *, threads: int) -> dict[str, Any]:
    """Writes ``int8.onnx`` of a trial and measures it on test.

    All layers that can be are in INT8, whatever it costs: nothing is searched for and nothing is
    rejected, so that networks are compared on equal ground.

    Returns:
        The report of the INT8 file, also in ``int8.json`` of the trial's folder.
    """
    target = folder / "int8.json"
    if target.exists():
        report: dict[str, Any] = json.loads(target.read_text())
        return report
    origin = load_origin(folder / "best.pt")
    options = ExportOptions(int8=True, calibration=data, threads=threads)
    material = checked_material(origin.spec, options)
    writer = calibrated_writer(origin.to_fp32(keep_operator=False), origin.spec, material, options)
    save_model(writer.write("cpu", ()), folder / "int8.onnx")
    dataset = open_dataset(data)
    with Segmenter(folder / "int8.onnx", backend="onnxruntime", threads=threads) as segmenter:
        report = evaluate(segmenter, dataset, "test").report(dataset.class_names)
    write_json(target, report)
    return report


def add_campaign_arguments(parser: argparse.ArgumentParser, *, work: str) -> None:
    """Adds what all campaigns are asked; the defaults are those of the full size."""
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="dataset folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--crop", type=int, default=320, help="pixels")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--validations", type=int, default=5, help="per training")
    parser.add_argument("--hours", type=float, default=240, help="then no further trial is begun")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time, sharing CPUs")
    parser.add_argument("--threads", type=int, default=2, help="of a network that is timed")
    parser.add_argument("--samples", type=int, default=100, help="timed calls of a network")
    parser.add_argument("--work", type=Path, default=Path(work), help="folder of the runs")
    parser.add_argument("-o", "--out", type=Path, help="result file")


def recipe_of(arguments: argparse.Namespace) -> TrainConfig:
    """Returns the recipe that all candidates share."""
    return TrainConfig(
        steps=arguments.steps,
        crop_px=arguments.crop,
        batch_size=arguments.batch_size,
        warmup_steps=min(100, max(1, arguments.steps // 10)),
        val_every=max(1, arguments.steps // arguments.validations),
    )


def measured(
    trials: Sequence[Trial], arguments: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Runs a campaign; returns the figures of each candidate's finished trials."""
    figures: dict[str, list[dict[str, Any]]] = {}
    for trial, found in run_trials(
        trials, arguments.data, arguments.work, jobs=arguments.jobs, hours=arguments.hours
    ):
        figures.setdefault(trial.candidate.name, []).append({"seed": trial.seed} | found)
        print(
            f"{trial.candidate.name} seed {trial.seed}: mIoU {found['test']['miou']:.4f}",
            flush=True,
        )
    for finished in figures.values():
        finished.sort(key=lambda trial: int(trial["seed"]))
    return figures


def timed(names: Sequence[str], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Writes and times the INT8 file of the first seed of each candidate.

    Returns:
        By name: "int8", the accuracy on test, and "latency", a record per backend.
    """
    folders = {name: arguments.work / name / "seed1" for name in names}
    found: dict[str, dict[str, Any]] = {
        name: {"int8": quantized(folder, arguments.data, threads=arguments.threads), "latency": []}
        for name, folder in folders.items()
    }
    paths = {folder / "int8.onnx": name for name, folder in folders.items()}
    cases = measured_in_turns(
        list(paths), threads=arguments.threads, samples=arguments.samples, stages=("alone",)
    )
    for case in cases:
        found[paths[case.path]]["latency"].append(case.record(arguments.threads))
    return found


def median_ms(entry: dict[str, Any], backend: str) -> float:
    """Returns the median latency of a tile among the records of :func:`timed`."""
    (record,) = (r for r in entry["latency"] if r["backend"] == backend)
    return float(record["latency_ms"]["alone"]["p50"])
