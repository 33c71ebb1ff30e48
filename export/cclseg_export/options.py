"""What an export is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cclseg.spec import ModelSpec

    from .targets import Target
    from .thresholds import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to write and what to accept.

    Attributes:
        int8: Write INT8 files.
        targets: What INT8 files are written for.
        fp16: Write a file with 16-bit weights and maps as well; INT8 files for TensorRT compute in
            16 bits what is not in 8.
        calibration: Folder of images, dataset folder or video to calibrate on.
        data: Dataset folder to measure accuracy on; None takes ``calibration``.
        split: Split to measure on.
        budget_points: Most IoU that any class may lose, in points (0.5 = 0.005).
        method: How the calibration finds the range of a map.
        percentile: Share of magnitudes that the method "percentile" keeps, in percent.
        keep_float: Names of nodes that stay in floating point.
        auto: Keep further layers in floating point until the budget holds on ``search_split``.
        search_minutes: Time for that search.
        search_split: Split that the search may look at; without its labels, the bias of the logits
            is corrected on it as well.
        keep_operator: Leave each correlation one node for compiled kernels and plug-ins.
        reference: Checkpoint or foreign file that files are compared with and that the budget
            counts against; None for the origin itself.
        spec: Description of a foreign file that has none.
        threads: Threads of the backends while measuring.
        license: SPDX identifier of the weights' licence, noted in the files.
    """

    int8: bool = False
    targets: tuple[Target, ...] = ("cpu",)
    fp16: bool = False
    calibration: Path | None = None
    data: Path | None = None
    split: str = "test"
    budget_points: float = 0.5
    method: Method = "minmax"
    percentile: float = 99.99
    keep_float: tuple[str, ...] = ()
    auto: bool = False
    search_minutes: float = 10
    search_split: str = "val"
    keep_operator: bool = False
    reference: Path | None = None
    spec: ModelSpec | None = None
    threads: int | None = None
    license: str = ""
