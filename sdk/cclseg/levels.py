"""Levels of work: the same frames at less cost, and the choice among them under a budget.

Declared from the most accurate to the cheapest: the model's own overlap of tiles, no overlap, the
frame at three quarters and at half its size, a smaller model where there is one. The mask has the
frame's own size at every level.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .deadline import LevelController
from .errors import InputError
from .packing import Level, logits_buffer
from .refinement import Refiner
from .temporal import TemporalSmoother
from .tiled import Assembly, TileCutter, check_frame

if TYPE_CHECKING:
    from .frame import ChannelOrder, Image
    from .packing import Network
    from .refinement import Refine

_log = logging.getLogger(__name__)

_SCALES = (0.75, 0.5)
_MEASURED_RUNS = 2
_REMEMBERED_SIZES = 16
# A level that saves less than this on frames of some size is none.
_LEAST_SAVING = 0.05
# The source's stage: no level makes a difference to it.
_NOT_OURS = "decode"


def full_level(network: Network) -> Level:
    """Returns the first level of a network: as its model says."""
    return Level("full", network, overlap=network.spec.overlap)


def declared_levels(network: Network, smaller: Network | None = None) -> tuple[Level, ...]:
    """Returns the levels of a network, the most accurate first.

    Args:
        network: The network.
        smaller: One with the same classes, bands and stride that costs less, None where there is
            none.
    """
    full = full_level(network)
    bare = replace(full, name="no-overlap", overlap=0.0)
    levels = [full, bare, *(replace(bare, name=f"scale-{s}", scale=s) for s in _SCALES)]
    if smaller is not None:
        half = levels[-1]
        levels.append(replace(half, name=f"{smaller.spec.name}-{half.name}", network=smaller))
    return tuple(levels)


class Regime:
    """How frames are to be computed: at which levels, in which time, smoothed, refined or not.

    Args:
        levels: From the most accurate to the cheapest.
        budget_ms: What a frame may take, None for as long as it takes at the first level.
        smooth: Blend each result with that of the frame before.
        refine: How each result is sharpened.

    Attributes:
        refiner: Does that for all streams, None for "off".

    Raises:
        InputError: The budget is not positive.
    """

    def __init__(
        self,
        levels: tuple[Level, ...],
        *,
        budget_ms: float | None = None,
        smooth: bool = False,
        refine: Refine = "off",
    ) -> None:
        if budget_ms is not None and not budget_ms > 0:
            raise InputError(f"budget_ms={budget_ms}; expected milliseconds above 0")
        self.levels = levels
        self.budget_ms = budget_ms
        self._smooth = smooth
        stride = levels[0].network.spec.output_stride
        self.refiner = None if refine == "off" else Refiner(refine, stride=stride)
        self._costs_ms: dict[tuple[int, int], dict[str, float]] = {}
        self._measuring = threading.Lock()  # streams of one network may meet here

    def smoother(self) -> TemporalSmoother | None:
        """Returns a smoother for one stream of frames, None where nothing is smoothed."""
        stride = self.levels[0].network.spec.output_stride
        return TemporalSmoother(stride=stride) if self._smooth else None

    def costs_ms(self, frame_hw: tuple[int, int]) -> dict[str, float]:
        """Measures what a frame takes at each level, from pixels to mask, once for each size.

        Args:
            frame_hw: Size of the frame in pixels.

        Returns:
            Milliseconds by name of the level.
        """
        with self._measuring:
            if frame_hw not in self._costs_ms:
                if len(self._costs_ms) == _REMEMBERED_SIZES:
                    self._costs_ms.clear()
                costs_ms = {level.name: self._cost_ms(level, frame_hw) for level in self.levels}
                self._costs_ms[frame_hw] = costs_ms
                _log.info("ms for a frame of %s at each level: %s", frame_hw, costs_ms)
            return dict(self._costs_ms[frame_hw])

    def _cost_ms(self, level: Level, frame_hw: tuple[int, int]) -> float:
        run, smoother = LevelRun(level), self.smoother()
        shape = (*frame_hw, len(level.network.spec.bands))
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        times_ms = []
        for _ in range(1 + _MEASURED_RUNS):
            start_ns = time.perf_counter_ns()
            run(image).segmentation(image, smoother=smoother, refiner=self.refiner)
            times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
        return min(times_ms[1:])  # the first one warms up


@dataclass(frozen=True, slots=True)
class _Steps:
    """The levels for frames of one size, and which of them is on."""

    frame_hw: tuple[int, int]
    levels: tuple[Level, ...]
    control: LevelController

    @property
    def current(self) -> Level:
        return self.levels[self.control.level]


class LevelChooser:
    """Chooses the level of each frame of one stream.

    One thread may ask for levels while another notes times.
    """

    def __init__(self, regime: Regime) -> None:
        self._regime = regime
        self._steps: _Steps | None = None
        self._told = False

    def level_for(self, frame: Image, *, channels: ChannelOrder | None = None) -> Level:
        """Returns the level for the next frame; a new size is measured first.

        Args:
            frame: (H, W, C) uint8.
            channels: Order of the frame's last axis, None for the network's usual one.

        Raises:
            InputError: The frame does not fit the network.
        """
        full, budget_ms = self._regime.levels[0], self._regime.budget_ms
        if budget_ms is None:
            return full
        check_frame(frame, full.network.spec, channels)
        frame_hw = frame.shape[0], frame.shape[1]
        if self._steps is None or frame_hw != self._steps.frame_hw:
            self._steps = self._planned(frame_hw, budget_ms)
        return self._steps.current

    def note(self, level: Level, timing: Mapping[str, float]) -> None:
        """Takes into account what a frame took.

        Args:
            level: What it was computed at.
            timing: Milliseconds per stage.
        """
        steps, budget_ms = self._steps, self._regime.budget_ms
        if steps is None or budget_ms is None or level not in steps.levels:
            return
        control = steps.control
        elapsed_ms = sum(ms for stage, ms in timing.items() if stage != _NOT_OURS)
        before = control.level
        control.observe(steps.levels.index(level), elapsed_ms)
        name = steps.current.name
        if control.level > before:
            text = "%.0f ms of a budget of %.0f ms: on to level %s"
            _log.warning(text, elapsed_ms, budget_ms, name)
        elif control.level < before:
            _log.info("there is time again: back to level %s", name)
        if before + 1 < len(steps.levels):
            self._told = False
        elif elapsed_ms > budget_ms and not self._told:
            self._told = True
            text = "%.0f ms at the cheapest level, more than %.0f: give more time, smaller frames"
            _log.warning(text, elapsed_ms, budget_ms)

    def _planned(self, frame_hw: tuple[int, int], budget_ms: float) -> _Steps:
        """Leaves out the levels that save nothing on frames of a size."""
        costs_ms = self._regime.costs_ms(frame_hw)
        levels = [self._regime.levels[0]]
        for level in self._regime.levels[1:]:
            if costs_ms[level.name] < (1 - _LEAST_SAVING) * costs_ms[levels[-1].name]:
                levels.append(level)
        control = LevelController([costs_ms[one.name] for one in levels], budget_ms)
        steps = _Steps(frame_hw, tuple(levels), control)
        _log.info("starting at level %s", steps.current.name)
        return steps


class LevelRun:
    """Computes frames at one level in the caller's thread.

    Not to be shared between threads.
    """

    def __init__(self, level: Level) -> None:
        network = level.network
        self._network = network
        self._cutter = TileCutter(network.spec, overlap=level.overlap, scale=level.scale)
        shape = (network.tiles_per_call, len(network.spec.bands), *network.spec.input_hw)
        self._input = np.empty(shape, np.float32)
        self._logits = logits_buffer(network.spec, network.tiles_per_call)

    def __call__(self, frame: Image, *, channels: ChannelOrder | None = None) -> Assembly:
        """Computes the logits of a frame.

        Args:
            frame: (H, W, C) uint8, C-contiguous or not.
            channels: Order of the frame's last axis, None for the network's usual one.

        Raises:
            InputError: The frame does not fit the network; says what to do.
            BackendError: The library failed.
        """
        start_ns = time.perf_counter_ns()
        plan = self._cutter.load(frame, channels=channels)
        assembly = Assembly(plan, self._network.spec, frame_hw=frame.shape[:2])
        assembly.timer.add("preprocess", (time.perf_counter_ns() - start_ns) / 1e6)
        for first in range(0, len(plan.corners), len(self._input)):
            group = plan.corners[first : first + len(self._input)]
            tiles = self._input[: len(group)]
            with assembly.timer.stage("preprocess"):
                for tile, corner in zip(tiles, group, strict=True):
                    self._cutter.cut(corner, tile)
            with assembly.timer.stage("infer"):
                logits = self._logits[: len(group)]
                self._network.submit(tiles, logits)()
            for index, tile_logits in enumerate(logits, start=first):
                assembly.add(index, tile_logits)
        return assembly
