"""How fast a run learns, and how many steps fit into its time."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import TrainConfig

logger = logging.getLogger(__name__)

_UNTIMED_STEPS, _TIMED_STEPS = 5, 10
_VALIDATION_TIME_SHARE = 0.12  # of a time budget


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then ``lr (1 - progress) ** power``."""
    warmup = min(config.warmup_steps, steps // 5)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return float(config.lr * (1 - (step - warmup) / max(steps - warmup, 1)) ** config.poly_power)


class StepClock:
    """Times a few steps after the first ones, which are slower than the rest."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()
        self._first_step: int | None = None
        self._first_s = 0.0
        self.step_s = 0.0
        self.elapsed_s = 0.0
        self.step = 0

    def is_ready(self, step: int) -> bool:
        """Notes that a step is done; True once, when enough have been timed."""
        now_s = time.monotonic()
        if self._first_step is None:
            self._first_step = step + _UNTIMED_STEPS
        if step == self._first_step:
            self._first_s = now_s
        if step != self._first_step + _TIMED_STEPS:
            return False
        self.step, self.elapsed_s = step, now_s - self._start_s
        self.step_s = (now_s - self._first_s) / _TIMED_STEPS
        return True


def affordable_steps(config: TrainConfig, clock: StepClock) -> int:
    """Plans how many steps fit into the time budget, validations included."""
    assert config.max_minutes is not None
    left_s = config.max_minutes * 60 * (1 - _VALIDATION_TIME_SHARE) - clock.elapsed_s
    steps = min(config.steps, clock.step + max(1, int(left_s / clock.step_s)))
    logger.info("%.2f s a step: %d steps fit into %s min", clock.step_s, steps, config.max_minutes)
    return steps
