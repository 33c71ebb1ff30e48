"""The parity gate: no file gets its name before it has been measured against its origin.

Every file is run on every backend of this machine that can run it, on labelled images, beside the
network that it was made from. A file that costs any class more than the budget is rejected, and so
is one that a library computes otherwise than it is written.
"""

from __future__ import annotations

import importlib.util
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cclseg.errors import BackendError
from cclseg.segmenter import Segmenter

from .parity import Latency, Parity, figures_of, measure, time_alternating
from .verify.agreement import disagreement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cclseg.dataset import DatasetFolder
    from cclseg.frame import FloatArray

    from .parity import Compared

CPU_BACKENDS = ("onnxruntime", "openvino")

_BACKENDS = {
    "cpu": CPU_BACKENDS,
    "openvino": ("openvino",),
    "tensorrt": ("onnxruntime",),
    "tensorrt-rtx": ("onnxruntime",),
}
"""Backends that run the file for a target. ONNX Runtime computes what TensorRT's parser reads."""

STAND_INS = frozenset({"tensorrt", "tensorrt-rtx"})
"""Targets whose accuracy is measured here by another library, and whose speed cannot be."""


def installed_backends(target: str) -> tuple[str, ...]:
    """Names the backends of this machine on which a file for a target is measured."""
    return tuple(name for name in _BACKENDS[target] if importlib.util.find_spec(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One file that was made and waits for its name.

    Attributes:
        path: Where it stands until it gets its name.
        precision: "fp32", "fp16" or "int8".
        target: What it was written for.
        kept_float: Nodes that were asked to stay in floating point.
        stand_in: A file that computes the same and runs on this machine, where it does not.
    """

    path: Path
    precision: str
    target: str = "cpu"
    kept_float: tuple[str, ...] = ()
    stand_in: Path | None = None

    @property
    def backends(self) -> tuple[str, ...]:
        """Installed backends that can run it."""
        return installed_backends(self.target)

    @property
    def is_timed(self) -> bool:
        """Whether a backend of this machine is what the file was written for."""
        return self.target not in STAND_INS


@dataclass(slots=True)
class Verdict:
    """What the gate found out about one file.

    Attributes:
        file: The file.
        parity: Accuracy per backend.
        latency: Time of a tile per backend, the fp32 file on the same backend as reference.
        failures: Why a backend could not load it, by backend.
        disagreement: Where a library computes something else than is written in it, or None.
        rejected: Why it must not be used, or None.
    """

    file: ModelFile
    parity: dict[str, Parity] = field(default_factory=dict)
    latency: dict[str, Latency] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    disagreement: str | None = None
    rejected: str | None = None

    def figures(self) -> dict[str, dict[str, Any]]:
        """Returns all figures per backend, JSON-ready."""
        return {
            backend: figures_of(parity, self.latency.get(backend))
            for backend, parity in self.parity.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Where and how strictly files are measured.

    Attributes:
        dataset: Labelled images.
        split: Split of the data to measure on.
        budget_points: Most IoU that any class may lose, in points (0.5 = 0.005).
        threads: Threads of the backends, None for all processors.
        tiles: Network inputs, each (1, C, H, W) float32, on which every library must compute an
            INT8 file as it is written, layer by layer; without any, this is not looked at.
    """

    dataset: DatasetFolder
    split: str
    budget_points: float
    threads: int | None = None
    tiles: Sequence[FloatArray] = ()

    def judge(
        self,
        reference: Segmenter,
        files: Sequence[ModelFile],
        *,
        on_image: Callable[[Compared], None] | None = None,
    ) -> list[Verdict]:
        """Measures files against their origin; the first one is the fp32 file.

        Args:
            reference: The origin, which stays open.
            files: What was made from it.
            on_image: Called after each image; ``found`` holds one mask per pair of file and
                backend, file by file.

        Returns:
            One verdict per file.
        """
        verdicts = [Verdict(file) for file in files]
        with ExitStack() as stack:
            opened = {
                (index, name): stack.enter_context(segmenter)
                for index, verdict in enumerate(verdicts)
                for name in verdict.file.backends
                if (segmenter := self._open(verdict, name))
            }
            results = measure(
                reference, list(opened.values()), self.dataset, self.split, on_image=on_image
            )
        for (index, name), parity in zip(opened, results, strict=True):
            verdicts[index].parity[name] = parity
        self._time(verdicts)
        for verdict in verdicts:
            verdict.rejected = self._refusal(verdict)
            if verdict.rejected is None:
                verdict.rejected = verdict.disagreement = self._disagreement(verdict)
        return verdicts

    def _open(self, verdict: Verdict, backend: str) -> Segmenter | None:
        """Opens a file, or notes in its verdict why that fails."""
        try:
            path = verdict.file.stand_in or verdict.file.path
            return Segmenter(path, backend=backend, threads=self.threads)
        except BackendError as error:
            verdict.failures[backend] = str(error)
            return None

    def _time(self, verdicts: Sequence[Verdict]) -> None:
        """Times all files that run on one backend in turns."""
        for backend in verdicts[0].parity:
            timed = [v for v in verdicts if v.file.is_timed and backend in v.parity]
            latencies = time_alternating(
                [v.file.path for v in timed], backend=backend, threads=self.threads
            )
            for verdict, latency in zip(timed, latencies, strict=True):
                verdict.latency[backend] = latency

    def _refusal(self, verdict: Verdict) -> str | None:
        worst = worst_loss(verdict.parity)
        if worst is None:
            runs_nowhere = verdict.failures and verdict.file.is_timed
            return "; ".join(verdict.failures.values()) if runs_nowhere else None
        loss, place = worst
        if loss <= self.budget_points:
            return None
        return (
            f"{place} loses {loss:.2f} points of IoU to {verdict.file.precision}; the budget is "
            f"{self.budget_points:g} points"
        )

    def _disagreement(self, verdict: Verdict) -> str | None:
        """Says where a library computes something else than the INT8 file that it was given.

        Libraries round layers on their own, each in its way: what is accurate here by such luck
        need not be with their next version, or on another machine.
        """
        file = verdict.file
        if file.precision != "int8" or not file.is_timed or not self.tiles:
            return None
        found = disagreement(file.path, self.tiles, verdict.parity)
        return found and (
            f"{found}; take another version of that library, or other layers for floating point "
            "(--keep-float)"
        )


def worst_loss(parity: Mapping[str, Parity]) -> tuple[float, str] | None:
    """Returns the largest loss of any class on any backend in points, and where; None if none."""
    losses = [
        (loss, f"{name} on {backend}")
        for backend, result in parity.items()
        for loss, name in [result.worst_loss]
    ]
    return max(losses, default=None)


def headlines(verdicts: Sequence[Verdict]) -> list[str]:
    """Says what a reader must know before any figure: refusals, lost speed, what is unmeasured."""
    return [
        *(f"{v.file.path.name} is rejected: {v.rejected}." for v in verdicts if v.rejected),
        *(line for verdict in verdicts for line in _lost_speed(verdict, verdicts)),
        *(line for verdict in verdicts for line in _unmeasured(verdict)),
    ]


def _lost_speed(verdict: Verdict, verdicts: Sequence[Verdict]) -> Iterator[str]:
    if verdict.file.precision != "int8":
        return
    for backend, latency in verdict.latency.items():
        rival_ratio, rival = max(
            (other.latency[backend].ratio, other.file.precision)
            for other in verdicts
            if other.file.precision != "int8" and backend in other.latency
        )
        if latency.ratio <= rival_ratio:
            yield (
                f"{verdict.file.path.name} is not faster than {rival} on {backend}: "
                f"{latency.ratio / rival_ratio:.2f} x as fast ({latency.ms:.3g} ms a tile)."
            )


def _unmeasured(verdict: Verdict) -> Iterator[str]:
    file = verdict.file
    if not verdict.parity and not verdict.rejected:
        yield (
            f"{file.path.name} was not measured, because nothing here runs it. Before you trust "
            "it, measure on the device: cclseg val MODEL DATA."
        )
    elif verdict.parity and not file.is_timed:
        yield (
            f"{file.path.name} was measured for its accuracy alone, in "
            f"{' and '.join(verdict.parity)}; its speed shows on a machine with {file.target}."
        )
    if verdict.parity:
        for backend, reason in verdict.failures.items():
            yield f"{file.path.name} does not run in {backend}: {reason}."
