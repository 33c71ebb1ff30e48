"""Choosing few frames of many as they come: unsure ones, and no two alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .look import Look

_ALIKE = 0.08  # neighbouring frames of a slow film are 0.03 apart, any two of it 0.2
_WORTH_CHANGING = 1.1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a frame.

    Attributes:
        kept: It is taken in.
        evicted: Place of the frame that makes room for it, None where there is room.
        distance: To the nearest kept frame of which the network was less sure; None for the first.
    """

    kept: bool
    evicted: int | None = None
    distance: float | None = None


class Choice:
    """Keeps the most valuable frames.

    A frame is worth its score times its distance to the nearest frame with a higher score (as
    cluster centres are found by A. Rodriguez and A. Laio, "Clustering by fast search and find of
    density peaks", Science 344, 2014): of many frames alike only the least sure one is worth much.
    When there is no room the one worth least goes. A frame much like a kept one comes in only
    when its score is a tenth higher, so that a slow pass over one place writes few files.

    Args:
        capacity: Frames to keep, at least 1.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.looks: list[Look] = []

    def judge(self, look: Look) -> Verdict:
        """Says what would become of a frame; :meth:`take` does it."""
        if look.score <= 0:
            return Verdict(kept=False)
        distances = self._distances(look)
        scores = np.array([kept.score for kept in self.looks])
        above = distances[scores >= look.score]
        distance = float(above.min()) if len(above) else None
        if len(self.looks) < self.capacity:
            return Verdict(kept=True, distance=distance)
        alike = int(distances.argmin())
        if distances[alike] < _ALIKE and look.score <= _WORTH_CHANGING * scores[alike]:
            return Verdict(kept=False, distance=distance)
        least = int(_worth([*self.looks, look]).argmin())
        if least == len(self.looks):
            return Verdict(kept=False, distance=distance)
        return Verdict(kept=True, evicted=least, distance=distance)

    def take(self, look: Look, verdict: Verdict) -> None:
        """Carries out a verdict: the evicted frame goes, the new one comes last."""
        if verdict.evicted is not None:
            del self.looks[verdict.evicted]
        self.looks.append(look)

    def least(self) -> int:
        """Returns the place of the frame that is worth least."""
        return int(_worth(self.looks).argmin())

    def _distances(self, look: Look) -> NDArray[np.float32]:
        if not self.looks:
            return np.zeros(0, np.float32)
        features = np.stack([kept.features for kept in self.looks])
        return np.asarray(np.linalg.norm(features - look.features, axis=1))


def _worth(looks: list[Look]) -> NDArray[np.float64]:
    """Returns what each of some frames is worth; the least sure one counts as far from all."""
    scores = np.array([look.score for look in looks])
    features = np.stack([look.features for look in looks])
    distances = np.linalg.norm(features[:, None] - features[None], axis=2).astype(np.float64)
    rank = np.empty(len(looks), np.intp)
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(looks))
    farthest = distances.max(axis=1)
    distances[rank[None, :] >= rank[:, None]] = np.inf  # only frames with a higher score count
    nearest = distances.min(axis=1)
    return np.asarray(scores * np.where(np.isinf(nearest), farthest, nearest))
