"""How long to wait before the next attempt."""

from __future__ import annotations


def backoff_s(
    failures: int, chance: float, *, first_s: float, longest_s: float, jitter: float = 0.25
) -> float:
    """Returns a wait that doubles with each failure, up to a longest one.

    Args:
        failures: Failures in a row, at least 1.
        chance: A random number in [0, 1).
        first_s: Wait after the first failure.
        longest_s: No wait is longer, but for the jitter.
        jitter: Share by which a wait is made longer or shorter at random, so that many devices do
            not come back to a server at the same moment.
    """
    doubled_s = first_s * 2.0 ** min(failures - 1, 32)
    return min(doubled_s, longest_s) * (1 + jitter * (2 * chance - 1))
