"""Weights of the parts of a loss that follow how fast each of them falls."""

from __future__ import annotations

import math
from collections.abc import Mapping

_SHORT, _LONG = 0.95, 0.995  # decays of the two running means
_TEMPERATURE = 2.0


class DynamicBalance:
    """Gives more weight to the parts that fall more slowly.

    Dynamic weight averaging (arXiv:1803.10704) with running means in place of epochs: ``w_i = n
    softmax_i(r_i / T)``, where ``r_i`` is the mean of part i over about the last 20 steps divided
    by that over the last 200, and n the number of parts. All weights are 1 as long as all parts
    fall alike.

    Example:
        >>> balance = DynamicBalance()
        >>> for step in range(100):
        ...     weights = balance.weights({"falls": 0.9**step, "stays": 1.0})
        >>> weights["stays"] > 1 > weights["falls"]
        True
    """

    def __init__(self) -> None:
        self._means: dict[str, tuple[float, float]] = {}

    def weights(self, parts: Mapping[str, float]) -> dict[str, float]:
        """Notes the parts of one step and returns their weights, whose mean is 1.

        Args:
            parts: Value of each part of the loss.
        """
        for name, value in parts.items():
            short, long = self._means.get(name, (value, value))
            self._means[name] = (
                _SHORT * short + (1 - _SHORT) * value,
                _LONG * long + (1 - _LONG) * value,
            )
        powers = {name: math.exp(self._ratio(name) / _TEMPERATURE) for name in parts}
        total = sum(powers.values())
        return {name: len(parts) * power / total for name, power in powers.items()}

    def _ratio(self, name: str) -> float:
        short, long = self._means[name]
        return min(short / long, 10.0) if long > 0 else 1.0

    def state(self) -> dict[str, list[float]]:
        """Returns what a resumed run needs."""
        return {name: list(means) for name, means in self._means.items()}

    def resume(self, state: Mapping[str, list[float]]) -> None:
        """Goes on from :meth:`state`."""
        self._means = {name: (short, long) for name, (short, long) in state.items()}
